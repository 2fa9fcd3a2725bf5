"""The detectors on the testbed recording: trained from the committed settings, scored on the last 40 % of its time.

    python scripts/bench/detection_testbed.py                        the test part, once; writes the section `testbed`
    python scripts/bench/detection_testbed.py --part validation      a rehearsal on the first 60 % alone; writes nothing
    python scripts/bench/detection_testbed.py --recording oran_testbed_2     a further recording; writes a section of its own

See `docs/results/detection_protocol.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from detection_results import write_section
from numpy.typing import NDArray
from report import machine

from ocad.detection.detector import SeriesDetector
from ocad.detection.ensemble import Ensemble, watched
from ocad.detection.events import EventCounts, alerts_of, count_events, incidents_of
from ocad.host import Host
from ocad.pipeline import train
from ocad.progress import console_progress
from ocad.runs import TrainRequest
from ocad.session import Session
from ocad_registry import Registry

RECORDINGS = Path(__file__).resolve().parents[2] / "data"
FIRST = "oran_testbed"
SHARES = (0.4, 0.6)
"""Where, of all time, the training and the validation part end."""
FORECASTERS = {"ecpri": "tcn-ecpri", "lbm": "tcn-lbm", "udp_echo": "tcn-udp_echo-oran"}
MEMBERS = ("rule_based", "changepoint", "residual", "isolation_forest")
"""Of the composite, in the order of its weights."""
BESIDE = ("subspace",)
PRECISION, RECALL, F1, POINT_FPR = 0.95, 0.85, 0.90, 0.05
RULE_LEVELS = tuple(
    (f"rules.missed.ccm={share}", f"rules.level.sigmas={level}", f"rules.level.lasting={lasting}")
    for share, level, lasting in itertools.product((0.05, 0.1, 0.25), (6.0, 8.0, 12.0), (2.5, 3.5))
)
"""Levels tried for the rules, whose own are those of an operator who never saw a recording."""
SMALL = 6.0
"""In robust deviations of normal rows."""
UNITS = {"udp_echo": "µs", "ecpri": "µs", "lbm": "µs", "ccm": "share"}
SIZES = ("size ≤ 6", "size > 6")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model did: counts, and the incidents of each group as found and all."""

    counts: EventCounts
    groups: dict[str, tuple[int, int]]


def main() -> None:
    """Trains everything in a registry of its own, scores and prints; writes the section for the test part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--recording", default=FIRST, help="its folder in data/")
    options = parser.parse_args()
    logging.getLogger("ocad.data").setLevel(logging.ERROR)
    folder_of = RECORDINGS / options.recording
    rows = pd.read_parquet(folder_of / "trace.parquet").sort_values(["endpoint", "timestamp"], ignore_index=True)
    sizes = recorded_sizes(rows, folder_of)
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "validation":
            rows = rows[shares_of_time(rows, folder_of) < SHARES[1]].reset_index(drop=True)
        path = Path(folder) / "rows.parquet"
        rows.to_parquet(path, index=False)
        models = trained(path, Path(folder))
        outcomes = {name: score(model, rows, sizes) for name, model in models.items()}
    text = section(options.recording, outcomes, rows)
    print(text)
    if options.part == "test":
        write_section(options.recording.replace("oran_", "").replace("_", "-"), text)


def shares_of_time(rows: pd.DataFrame, recording: Path) -> NDArray[np.float64]:
    """How far into the recording each row is, from 0 to 1, by the duration that the schedule tells."""
    duration = json.loads((recording / "schedule.json").read_text(encoding="utf-8"))["duration_s"]
    seconds = (rows["timestamp"] - rows["timestamp"].min()).dt.total_seconds()
    return np.asarray(seconds / float(duration), np.float64)


def recorded_sizes(rows: pd.DataFrame, recording: Path) -> dict[tuple[str, pd.Timestamp], float | None]:
    """The measured size of each incident by link and second of its beginning; empty for a recording under way."""
    path = recording / "recording.json"
    if not path.is_file():
        return {}
    begin = rows["timestamp"].min()
    return {
        (one["endpoint"], begin + pd.Timedelta(seconds=float(one["start_s"]))): one["size_sigmas"]
        for one in json.loads(path.read_text(encoding="utf-8"))["incidents"]
    }


def trained(path: Path, folder: Path) -> dict[str, Ensemble]:
    """The composite, the rules alone, plain and by the same search, and each member alone, from the committed settings."""
    session = Session(Host(), Registry(folder / "models"), console_progress())

    def register(plugin: str, metric: str, config: str, name: str, *overrides: str) -> str:
        request = TrainRequest(plugin, metric, str(path), config, overrides, name, runs=str(folder / "runs"))
        return train(request, session).version.ref

    shares = ("windows.train=0.4", "windows.validation=0.2")
    forecasters = [
        register("tcn", metric, "configs/tcn/default.yaml", name, *shares) for metric, name in FORECASTERS.items()
    ]
    references = {}
    for member in MEMBERS + BESIDE:
        given = (f"forecasters=[{','.join(forecasters)}]",) if member == "residual" else ()
        references[member] = register(member, "oran", f"configs/{member}/oran.yaml", f"{member}-oran", *given)
    # exact versions: one that failed a gate of its own still counts here
    config = "configs/composite/oran.yaml"
    members = f"members=[{','.join(references[member] for member in MEMBERS)}]"
    composite = register("composite", "oran", config, "composite-oran", members)
    rules = {
        levels: register(
            "composite",
            "oran",
            config,
            "rules-oran",
            f"members=[{register('rule_based', 'oran', 'configs/rule_based/oran.yaml', 'rule_based-oran', *levels)}]",
        )
        for levels in ((), *RULE_LEVELS)
    }
    tuned = max(rules, key=lambda levels: session.registry.resolve(rules[levels]).manifest.metrics["cv_event_f1"])
    models = {
        "composite": loaded(session, composite),
        "rules, by the same search": loaded(session, rules[()]),
        f"rules, levels searched too ({', '.join(tuned)})": loaded(session, rules[tuned]),
    }
    for member, reference in references.items():
        detector = session.load(reference)
        assert isinstance(detector, SeriesDetector)
        models[f"`{member}` alone, default hold-down"] = watched(member, detector, UNITS)
    print(json.dumps({name: model.rule.to_json() for name, model in models.items()}, indent=None), flush=True)
    return models


def loaded(session: Session, reference: str) -> Ensemble:
    """The registered composite."""
    found = session.load(reference)
    assert isinstance(found, Ensemble)
    return found


def score(model: Ensemble, rows: pd.DataFrame, sizes: dict[tuple[str, pd.Timestamp], float | None]) -> Outcome:
    """Counts in the last 40 % of the rows of each link, after a run over all of them from a fresh state."""
    model.forget()
    alarms = model.detect(rows).alarms
    counts, groups = EventCounts(), dict[str, tuple[int, int]]()
    for endpoint, places in rows.groupby("endpoint", sort=False).indices.items():
        tested = np.asarray(places)[int(SHARES[1] * len(places)) :]
        part = rows.iloc[tested]
        labels, alarm = part["label"].to_numpy(), alarms[tested]
        counts += count_events(labels, alarm, rest=model.rule.rest)
        free = alerts_of(alarm, model.rule.rest)
        for incident in incidents_of(labels):
            match = next((alert for alert in free if incident.start <= alert.start <= incident.deadline), None)
            if match is not None:
                free.remove(match)
            for group in groups_of(part.iloc[incident.start], str(endpoint), sizes):
                found, everything = groups.get(group, (0, 0))
                groups[group] = found + (match is not None), everything + 1
    return Outcome(counts, groups)


def groups_of(row: pd.Series, endpoint: str, sizes: dict[tuple[str, pd.Timestamp], float | None]) -> list[str]:
    """The groups of the incident that begins with `row`: its kind, and for what moves delays its measured size."""
    groups = [str(row["kind"])]
    if row["kind"] in ("flap", "loss"):
        return groups
    step = pd.Timedelta(seconds=1)
    for (link, begin), size in sizes.items():
        if link == endpoint and row["timestamp"] - step <= begin < row["timestamp"] + 2 * step and size is not None:
            groups.append(SIZES[size > SMALL])
            break
    return groups


def section(recording: str, outcomes: dict[str, Outcome], rows: pd.DataFrame) -> str:
    """The tables and what falls short."""
    kinds = sorted({group for outcome in outcomes.values() for group in outcome.groups}, key=_order)
    lines = [
        f"## The recording `{recording}`",
        "",
        f"`scripts/bench/detection_testbed.py` on {machine()}. {described(rows)} Events without kinds: an incident of at"
        " most three rows counts as a spike, the stricter reading.",
        "",
        f"| model | precision | recall | F1 | point FPR | {' | '.join(kinds)} |",
        f"| --- | --- | --- | --- | --- |{' --- |' * len(kinds)}",
    ]
    for name, outcome in outcomes.items():
        metrics = outcome.counts.metrics()
        shares = (metrics.event_precision, metrics.event_recall, metrics.event_f1, metrics.point_fpr)
        found = (outcome.groups.get(kind, (0, 0)) for kind in kinds)
        cells = [*(f"{share:.3f}" for share in shares), *(f"{some} of {all_}" for some, all_ in found)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *verdicts(outcomes)])


def described(rows: pd.DataFrame) -> str:
    """What the test part holds."""
    parts = [part.iloc[int(SHARES[1] * len(part)) :] for _, part in rows.groupby("endpoint", sort=False)]
    incidents = sum(len(incidents_of(part["label"].to_numpy())) for part in parts)
    tested = pd.concat(parts)
    return f"{len(tested):,} rows of {len(parts)} links, {incidents} incidents, {tested['label'].mean():.1%} of the rows in one."


def verdicts(outcomes: dict[str, Outcome]) -> list[str]:
    """Which bars the composite meets, and what it misses most, from the figures alone."""
    composite = outcomes["composite"]
    metrics = composite.counts.metrics()
    rules = max(one.counts.metrics().event_f1 for name, one in outcomes.items() if "rule" in name)
    bars = {
        f"precision {metrics.event_precision:.3f} (bar > {PRECISION})": metrics.event_precision > PRECISION,
        f"recall {metrics.event_recall:.3f} (bar > {RECALL})": metrics.event_recall > RECALL,
        f"F1 {metrics.event_f1:.3f} (bar > {F1:.2f})": metrics.event_f1 > F1,
        f"point FPR {metrics.point_fpr:.3f} (bar < {POINT_FPR})": metrics.point_fpr < POINT_FPR,
        f"F1 above the best of the rules, {rules:.3f}": metrics.event_f1 > rules,
    }
    lines = [f"- {what}: {'met' if met else 'not met'}" for what, met in bars.items()]
    missed = {kind: whole - found for kind, (found, whole) in composite.groups.items() if kind not in SIZES}
    listed = ", ".join(f"{kind} {count}" for kind, count in sorted(missed.items(), key=lambda one: -one[1]) if count)
    lines.append(f"- Missed incidents: {listed or 'none'}; wrong alerts: {composite.counts.wrong}.")
    return lines


def _order(group: str) -> tuple[bool, str]:
    return group in SIZES, group


if __name__ == "__main__":
    main()
