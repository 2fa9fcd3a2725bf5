"""Rows about load: one row a request at 64 connections, one connection, a hundred rows a request, gRPC."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from serving import tools
from serving.fixture import MODELS, ids
from serving.load import Load, ghz, grpc_message, grpcload, protoset, wrk
from serving.measure import Bench, Row, at_least, at_most, bare, costed, middle, ratio
from serving.ours import Ours
from serving.peers.start import TITLES, Peer, UnavailableError, start

PLAIN, FUSED = MODELS
CONNECTIONS = 64
Found = Mapping[str, list[Load]]


@contextmanager
def peers(bench: Bench, *names: str) -> Iterator[dict[str, Peer]]:
    """The peers that can be had, running; a note for each that cannot."""
    with ExitStack() as stack:
        found: dict[str, Peer] = {}
        for name in names:
            try:
                found[name] = start(name, bench.graph(PLAIN), bench.cache)
                stack.callback(found[name].server.stop)
            except UnavailableError as error:
                bench.notes.append(f"{TITLES[name]}: left out, it {error}.")
        yield found


def rate(load: Load) -> float:
    """Requests a second."""
    return load.rate


def median(load: Load) -> float:
    """The median latency in µs."""
    return load.p50


def to(found: Found, ours: str, theirs: str) -> str:
    """The two medians behind a ratio of rates."""
    return f"{middle(found[ours], rate):,.0f}/s to {middle(found[theirs], rate):,.0f}/s"


def single(bench: Bench) -> list[Row]:
    """One row a request as JSON at 64 connections, beside the bare session and the peers."""
    with Ours(bench.registries["models"], bench.work) as ours, peers(bench, *TITLES) as others:
        running = {model: (ours.server, ours.http, model) for model in MODELS}
        running |= {name: (peer.server, peer.http, PLAIN) for name, peer in others.items()}
        bodies = bench.bodies(1)
        found = bench.in_turn(
            {
                name: partial(costed, server, partial(wrk, address, model, bodies, CONNECTIONS, bench.seconds))
                for name, (server, address, model) in running.items()
            }
            | {f"bare {model}": partial(bare, bench.graph(model), 1, bench.seconds / 4) for model in MODELS}
        )
    bench.count_failures(found, "one row, 64 connections")
    what = "one row a request, JSON, 64 connections, against"
    bare_plain, bare_fused = (f"bare {model}" for model in MODELS)
    row = f"{what} the bare session row by row on one thread"
    fused = f"{ratio(found[FUSED], found[bare_fused]):.2f} × ({to(found, FUSED, bare_fused)})"
    rows = [
        at_least(row, 2.0, ratio(found[PLAIN], found[bare_plain]), detail=to(found, PLAIN, bare_plain)),
        Row("the same, fused table", "", fused),
    ]
    for name, bar in (("triton", 2.5), ("fastapi", 7.0), ("mlserver", 20.0)):
        if name in found:
            value = ratio(found[PLAIN], found[name])
            rows.append(at_least(f"{what} {TITLES[name]}", bar, value, detail=to(found, PLAIN, name)))
    p99 = middle(found[PLAIN], lambda load: load.p99 / 1e3)
    return [*rows, at_most("p99, one row, 64 connections", 8, p99, "ms", digits=1), *_cpu_rows(found)]


def _cpu_rows(found: Found) -> Iterator[Row]:
    """CPU seconds per 1,000 rows beside the peers'."""
    for name, title, part in (("triton", "Triton", 3), ("fastapi", "FastAPI", 10)):
        if name in found:
            value = ratio(found[PLAIN], found[name], lambda load: load.cpu_per_thousand)
            ours, theirs = (middle(found[key], lambda load: load.cpu_per_thousand) for key in (PLAIN, name))
            what = f"CPU seconds per 1,000 rows at 64 connections, against {title}"
            yield Row(what, f"≤ 1/{part}", f"1/{1 / value:.1f} ({ours:.3f} to {theirs:.3f} s)", value <= 1 / part)


def latency(bench: Bench) -> list[Row]:
    """One row, one connection: what the server adds to the median of the bare session."""
    rows = []
    with Ours(bench.registries["models"], bench.work) as ours:
        for model in MODELS:
            found = bench.in_turn(
                {
                    "ours": partial(wrk, ours.http, model, bench.bodies(1), 1, bench.seconds),
                    "bare": partial(bare, bench.graph(model), 1, bench.seconds / 4),
                }
            )
            added = statistics.median(a.p50 - b.p50 for a, b in zip(found["ours"], found["bare"], strict=True))
            detail = f"{middle(found['ours'], median):.0f} over {middle(found['bare'], median):.0f} µs"
            what = f"one row, one connection: median above the bare session{_fused(model)}"
            rows.append(at_most(what, 50, added, "µs", detail))
    return rows


def hundred(bench: Bench) -> list[Row]:
    """100 rows a request: one connection against the bare median, eight against the bare session on two threads."""
    bodies = {"JSON": bench.bodies(100), "binary": bench.bodies(100, binary=True)}
    rows: list[Row] = []
    with Ours(bench.registries["models"], bench.work) as ours:
        for model in MODELS:
            subjects = {
                "bare": partial(bare, bench.graph(model), 100, bench.seconds / 4),
                "bare two": partial(bare, bench.graph(model), 100, bench.seconds / 2, threads=2),
            }
            for kind, sent in bodies.items():
                subjects[kind] = partial(wrk, ours.http, model, sent, 1, bench.seconds)
                subjects[f"{kind} eight"] = partial(wrk, ours.http, model, sent, 8, bench.seconds)
            found = bench.in_turn(subjects)
            bench.count_failures(found, "100 rows")
            rows += _hundred_rows(found, _fused(model))
    return rows


def _hundred_rows(found: Found, fused: str) -> Iterator[Row]:
    for kind, bar in (("JSON", 0.70), ("binary", 0.80)):
        what = f"100 rows a request, one connection, {kind}: bare median / server median{fused}"
        detail = f"{middle(found['bare'], median):.0f} / {middle(found[kind], median):.0f} µs"
        yield at_least(what, bar, ratio(found["bare"], found[kind], median), "", detail)
    for kind in ("JSON", "binary"):
        what = f"100 rows, 8 connections, {kind}, against the bare session on two threads{fused}"
        eight = f"{kind} eight"
        yield at_least(what, 0.85, ratio(found[eight], found["bare two"]), "", to(found, eight, "bare two"))


def grpc(bench: Bench) -> list[Row]:
    """gRPC, one row, 64 connections, against Triton's, by the bench's own program and by ghz."""
    message, descriptors = grpc_message(bench.work / "message", PLAIN, ids(1)), protoset(bench.work / "protoset")
    own, general = tools.built(bench, "grpcload"), tools.ghz(bench)
    with Ours(bench.registries["models"], bench.work) as ours, peers(bench, "triton") as others:
        addresses = {"ours": ours.grpc} | {name: peer.grpc for name, peer in others.items()}
        subjects = {n: partial(grpcload, own, a, message, CONNECTIONS, bench.seconds) for n, a in addresses.items()}
        if general:
            for name, address in addresses.items():
                run = partial(ghz, general, address, descriptors, message, CONNECTIONS, bench.seconds)
                subjects[f"{name} by ghz"] = run
        found = bench.in_turn(subjects)
    if not others:
        return []
    bench.count_failures({name: found[name] for name in addresses}, "gRPC")
    what = "gRPC, one row, 64 connections, against Triton's gRPC"
    rows = [at_least(what, 4, ratio(found["ours"], found["triton"]), detail=to(found, "ours", "triton"))]
    if general:
        value = ratio(found["ours by ghz"], found["triton by ghz"])
        shown = f"{value:.2f} × ({to(found, 'ours by ghz', 'triton by ghz')})"
        rows.append(Row("the same by ghz, whose own cost bounds it", "", shown))
    return rows


def _fused(model: str) -> str:
    return "" if model == PLAIN else ", fused table"
