"""Every registered model's answers beside onnxruntime in Python: batches of 1 to 256, both protocols, alone and batched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from ocad_registry import Registry
from serving.fixture import MODELS, Ids, ids, session
from serving.load import wrk
from serving.measure import Bench, Row
from serving.ours import Ours

TOLERANCE = 1e-6
Values = npt.NDArray[np.float32]


def answers(bench: Bench) -> list[Row]:
    """The greatest difference from Python on the scale of the output (1: a probability)."""
    store = Registry(bench.registries["models"])
    worst, asked = 0.0, 0
    with Ours(bench.registries["models"], bench.work) as ours:
        references = [entry.ref for entry in store.list()]
        for reference in references:
            bare = session(store.resolve(reference).file("onnx"))
            requests = [ids(rows, seed=rows) for rows in range(1, 257)]
            expected = [bare.run(None, {"ids": rows})[0] for rows in requests]
            for protocol in ("http", "grpc"):
                for crowd in (1, 16):
                    found = _ask_all(getattr(ours, protocol), protocol, reference, requests, crowd)
                    worst = max(worst, *(_difference(a, b) for a, b in zip(found, expected, strict=True)))
                    asked += len(found)
        busy = wrk(ours.http, MODELS[0], bench.bodies(1), 16, 1)
    what = f"answers against onnxruntime in Python: {len(references)} versions, batch 1–256, both protocols, alone and 16 at once"
    shown = f"{worst:.1e} of the output's scale at most, {asked:,} requests"
    return [Row(what, f"≤ {TOLERANCE:.0e}", shown, worst <= TOLERANCE and busy.failed == 0)]


def _difference(found: Values, expected: Values) -> float:
    """Beyond two float32 ulps of the reference, as DESIGN's bar allows."""
    assert found.shape == expected.shape
    return float((np.abs(found - expected) - 2 * np.spacing(np.abs(expected))).max().clip(0))


def _ask_all(address: str, protocol: str, reference: str, requests: list[Ids], crowd: int) -> list[Values]:
    """Every request, `crowd` of them at a time."""
    import tritonclient.grpc
    import tritonclient.http

    module: Any = tritonclient.http if protocol == "http" else tritonclient.grpc
    name, version = reference.split("@")

    def ask(part: list[Ids]) -> list[Values]:
        found = []
        with module.InferenceServerClient(address) as client:
            for rows in part:
                tensor = module.InferInput("ids", list(rows.shape), "INT64")
                tensor.set_data_from_numpy(rows)
                found.append(client.infer(name, [tensor], model_version=version).as_numpy("probability"))
        return found

    parts = [requests[start::crowd] for start in range(crowd)]
    with ThreadPoolExecutor(crowd) as pool:
        done = list(pool.map(ask, parts))
    return [done[number % crowd][number // crowd] for number in range(len(requests))]
