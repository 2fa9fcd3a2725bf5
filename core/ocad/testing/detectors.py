"""What every detector promises: one score a row however the rows arrive, in one unit, and held-out calibration.

Scores are noise units, of which `ocad.detection.units.ALARM` is an alarm: lost rows are one, what is further out is never
scored lower.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.detection.units import ALARM
from ocad.errors import OcadError
from ocad.protocols import Detector
from ocad.testing.bench import Bench, Skipped, need

if TYPE_CHECKING:
    import pandas as pd

    from ocad_registry import Registry, Version

Floats = NDArray[np.float64]

_EXACT, _ONNX = 1e-9, 1e-5
"""How far two ways of scoring may differ: as a share of the score in float64, of the largest score where a graph computes."""
_PIECES = 8
_POINTS = 120
"""Rows of each piece that are given one at a time."""
_BEFORE, _LOST = 240, 5
"""Rows as they are, and rows without any value after them, within which a dead link is an alarm."""
_SIZES = (8.0, 12.0, 20.0, 50.0, 1_000.0)
"""Sizes of an excursion in robust local noise."""
_HELD_OUT_SHARE = 0.03
"""Share of held-out normal rows with a surprise of 2 that is still about one in a hundred."""
_FOUND = 0.4
"""Share of the labelled incidents that must stand out: a detector of shifts need not see spikes. Chance finds a tenth."""
_AFTERMATH = 30
"""Rows after an incident that are not counted as normal: what looks back on a window still sees it."""
_NEW_ENDPOINT = "never seen"


def loads_as_detector(bench: Bench) -> str:
    """A registered version loads as a detector that begins with a fresh state."""
    model = _load(bench)
    assert isinstance(model, Detector), "the loaded model lacks one of `fit`, `score`, `state`, `restore`"
    assert json.loads(json.dumps(model.state())) == model.state(), "the state is no JSON value"
    return ", ".join(getattr(model, "metrics", ()))


def scores_rows(bench: Bench) -> str:
    """Each row has one finite score, the same whole, in pieces and row by row, the state kept as JSON in between."""
    frame, context = _frame(bench), bench.session.host_context()
    whole = np.asarray(bench.plugin.ask("ocad_detect", context=context, model=_load(bench), frame=frame))
    assert whole.shape == (len(frame),), f"{whole.shape} scores for {len(frame)} rows"
    assert np.isfinite(whole).all(), f"row {int(np.argmin(np.isfinite(whole)))} has no finite score"
    state: dict[str, Any] = {}
    parts: list[Floats] = []
    for piece in _pieces(frame):
        model = _load(bench)
        model.restore(json.loads(json.dumps(state)))
        parts.append(_points(model, piece) if len(piece) <= _POINTS else np.asarray(model.score(piece)))
        state = model.state()
    scores = np.concatenate(parts)
    graph = _asks_a_graph(need(bench.version), bench.session.registry)
    scale = max(1.0, float(whole.max())) if graph else np.maximum(1.0, np.abs(whole))
    allowed, worst = _ONNX if graph else _EXACT, float(np.max(np.abs(scores - whole) / scale))
    assert worst <= allowed, f"pieces and points differ from the whole by {worst:.2g}, {allowed:g} is allowed"
    return f"{len(whole)} scores, {worst:.1e} apart"


def takes_what_is_odd(bench: Bench) -> str:
    """Missing values, gaps, and an endpoint never seen have finite scores, whole and row by row."""
    frame = _frame(bench)
    first = frame[frame["endpoint"] == frame["endpoint"].iloc[0]].head(4 * _POINTS).reset_index(drop=True)
    odd = first.assign(endpoint=_NEW_ENDPOINT)
    metrics = list(_metrics(bench))
    odd.loc[20:24, metrics] = np.nan
    odd.loc[40:, metrics[:1]] = np.nan
    odd = odd.drop(index=range(60, 110)).reset_index(drop=True)
    for endpoint in (_NEW_ENDPOINT, first["endpoint"].iloc[0]):
        rows = odd.assign(endpoint=endpoint)
        model = _load(bench)
        for name, scores in (("whole", model.score(rows)), ("row by row", _points(_load(bench), rows))):
            assert np.isfinite(scores).all(), f"`{endpoint}`: a score is not finite ({name})"
    return f"{len(odd)} rows"


def is_calibrated(bench: Bench) -> str:
    """About one in a hundred of the held-out normal rows has a surprise of 2; without a calibration none is an alarm."""
    import pandas as pd

    from ocad.detection.detector import normal_rows
    from ocad.detection.training import surprises

    held_out = pd.read_parquet(need(bench.prepared).splits["validation"])
    normal = normal_rows(held_out)
    model = _load(bench)
    scores, calibration = model.score(normal), getattr(model, "calibration", None)
    if calibration is None:
        share = float((scores >= ALARM).mean())
        assert share <= _HELD_OUT_SHARE, f"{share:.1%} of the held-out normal rows are alarms"
        return f"{share:.2%} of {len(normal)} rows are alarms"
    share = float((surprises(calibration, normal, scores) >= 2).mean())
    assert share <= _HELD_OUT_SHARE, f"{share:.1%} of the held-out normal rows have a surprise of 2"
    return f"{share:.2%} of {len(normal)} rows"


def lost_rows_alarm(bench: Bench) -> str:
    """A link that is dead, all its values missing, is an alarm within five rows."""
    start = _frame(bench).groupby("endpoint", sort=False).head(_BEFORE + _LOST).reset_index(drop=True)
    newest = start.groupby("endpoint", sort=False).cumcount(ascending=False).to_numpy() < _LOST
    start.loc[newest, list(_metrics(bench))] = np.nan
    scores = _load(bench).score(start)
    for endpoint, places in start.groupby("endpoint", sort=False).indices.items():
        highest = float(scores[places[-_LOST:]].max())
        assert highest >= ALARM, f"`{endpoint}`: {_LOST} rows without any value are no alarm, they score {highest:.3g}"
    return f"{start['endpoint'].nunique()} endpoints"


def more_is_never_less(bench: Bench) -> str:
    """Of rows that are 8 noise units out or more the further one is never scored lower."""
    from ocad.detection.inject import local_noise

    frame, metrics = _frame(bench), list(_metrics(bench))
    start = frame[frame["endpoint"] == frame["endpoint"].iloc[0]].head(_BEFORE).reset_index(drop=True)
    usual = start[metrics].to_numpy(np.float64)
    noise = [local_noise(column, len(start) - 1, len(start) - 1) for column in usual.T]
    level = np.nanmedian(usual[-_POINTS:], axis=0)
    graph, found = _asks_a_graph(need(bench.version), bench.session.registry), []
    for size in _SIZES:
        further = start.copy()
        further.loc[start.index[-1], metrics] = level + size * np.array(noise)
        found.append(float(_load(bench).score(further)[-1]))
    allowed = (_ONNX if graph else _EXACT) * max(1.0, *found)
    for (size, score), (further_out, other) in itertools.pairwise(zip(_SIZES, found, strict=True)):
        assert other >= score - allowed, (
            f"an excursion of {further_out:g} noise units is scored lower than one of {size:g}: {other:.4g}, {score:.4g}"
        )
    return " ≤ ".join(f"{score:.3g}" for score in found)


def finds_incidents(bench: Bench) -> str:
    """Scores are higher where the series is anomalous."""
    from ocad.detection.events import incidents_of

    frame = _frame(bench)
    if "label" not in frame or frame["label"].nunique() < 2:
        raise Skipped("the data has no labels of both classes")
    scores, label = _load(bench).score(frame), frame["label"].to_numpy()
    peaks, normal = [], []
    for places in frame.groupby("endpoint", sort=False).indices.values():
        own, calm = scores[places], label[places] != 1
        for incident in incidents_of(label[places]):
            peaks.append(float(own[incident.start : incident.end + 1].max()))
            calm[incident.start : incident.end + 1 + _AFTERMATH] = False
        normal.append(own[calm])
    usual = float(np.quantile(np.concatenate(normal), 0.99))
    found = sum(peak > usual for peak in peaks)
    assert found >= _FOUND * len(peaks), f"only {found} of {len(peaks)} incidents score above 99 % of the normal rows"
    return f"{found} of {len(peaks)} incidents"


def refuses_bad_rows(bench: Bench) -> str:
    """A missing metric and a clock that goes backwards are refused with an error of ours that names them."""
    frame, metric, model = _frame(bench).head(50), _metrics(bench)[0], _load(bench)
    missing = _refusal(lambda: _load(bench).score(frame.drop(columns=metric)), "rows without a metric that it reads")
    assert metric in missing, f"the error does not name the missing metric `{metric}`"
    model.score(frame)
    backwards = _refusal(lambda: model.score(frame.tail(1)), "a row that is not after the endpoint's last one")
    assert str(frame["endpoint"].iloc[-1]) in backwards, "the error does not name the endpoint"
    return backwards


def _refusal(call: Callable[[], Any], what: str) -> str:
    """The message of the error of ours that `call` must raise."""
    try:
        call()
    except OcadError as error:
        return error.message
    raise AssertionError(f"{what} are scored" if what.startswith("rows") else f"{what} is scored")


def _load(bench: Bench) -> Any:
    if not bench.plugin.implements("ocad_detect"):
        raise Skipped("it detects nothing")
    return bench.session.load(need(bench.version).ref)


def _metrics(bench: Bench) -> tuple[str, ...]:
    """The columns that the model reads."""
    known = (bench.metric,) if bench.metric else ()
    return tuple(getattr(_load(bench), "metrics", known))


def _frame(bench: Bench) -> pd.DataFrame:
    from ocad.catalogue import find_data
    from ocad.timeseries.frame import read_frame

    return read_frame(find_data(bench.data), _metrics(bench) or None, varying=False).data


def _pieces(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows in order, long pieces and short ones in turn."""
    length = max(1, len(frame) // _PIECES)
    for first in range(0, len(frame), length):
        yield frame.iloc[first : first + min(length, _POINTS)]
        if length > _POINTS:
            yield frame.iloc[first + _POINTS : first + length]


def _points(model: Any, frame: pd.DataFrame) -> Floats:
    """The scores of rows that arrive one at a time, by `score_point` where the detector has it."""
    if not hasattr(model, "score_point"):
        return np.array([float(model.score(frame.iloc[[row]])[0]) for row in range(len(frame))])
    times = frame["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    values = frame[list(model.metrics)].to_numpy(np.float64).tolist()
    rows = zip(frame["endpoint"], times, values, strict=True)
    return np.array([float(model.score_point(*row)) for row in rows])


def _asks_a_graph(version: Version, registry: Registry) -> bool:
    """Whether the version, or one that it is built from, answers by an ONNX graph."""
    manifest = version.manifest
    if any(file.role == "onnx" for file in manifest.files):
        return True
    return any(_asks_a_graph(registry.resolve(parent.ref), registry) for parent in manifest.parents)


DETECTOR_CHECKS: tuple[Callable[[Bench], str], ...] = (
    loads_as_detector,
    scores_rows,
    takes_what_is_odd,
    is_calibrated,
    lost_rows_alarm,
    more_is_never_less,
    finds_incidents,
    refuses_bad_rows,
)
