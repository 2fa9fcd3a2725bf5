"""Who forecasts a metric: a registered version, asked through its plugin or a server, or an autoregression of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ocad.errors import DataError
from ocad.export.runtime import NUMPY_TYPES
from ocad.timeseries.baselines import centred_autoregression
from ocad_registry import NotFound, RegistryError

if TYPE_CHECKING:
    from ocad.contexts import HostContext
    from ocad.protocols import Predictor
    from ocad.timeseries.windows import Windows
    from ocad_registry import Signature, Version

Floats = NDArray[np.float64]


class Forecaster(Protocol):
    """The next value of a series from its last `length` values, in the metric's unit."""

    length: int

    def forecast(self, windows: Floats) -> Floats:
        """The value `(n,)` that follows each of `windows` `(n, length)`."""
        ...

    def next_value(self, window: Sequence[float]) -> float:
        """The value that follows one window."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What `forecaster_from_json` reads."""
        ...


class Autoregression:
    """A linear forecast whose weights sum to 1, so that it follows a shifted level; least squares on the training part."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.length = len(weights)
        self._weights = list(map(float, weights))

    @classmethod
    def fit(cls, windows: Windows) -> Autoregression:
        """From training windows."""
        return cls(centred_autoregression(windows).weights.tolist())

    def forecast(self, windows: Floats) -> Floats:
        """See `Forecaster`."""
        forecasts = np.zeros(len(windows))
        # value by value as `next_value` does: a matrix product adds up in an order that the processor chooses
        for place, weight in enumerate(self._weights):
            forecasts += windows[:, place] * weight
        return forecasts

    def next_value(self, window: Sequence[float]) -> float:
        """See `Forecaster`; the same to the last digit."""
        forecast = 0.0
        for value, weight in zip(window, self._weights, strict=True):
            forecast += value * weight
        return forecast

    def to_json(self) -> dict[str, Any]:
        """See `Forecaster`."""
        return {"weights": self._weights}


@dataclass(slots=True)
class RegisteredForecaster:
    """The exact version `ref` with the digest of its metadata; `predictor` answers for it."""

    ref: str
    metadata_sha256: str
    length: int
    input: str
    output: str
    dtype: str
    inner: tuple[int, ...]
    """The shape of one window: `(length, 1)` or `(length,)`."""
    predictor: Predictor | None = None

    def forecast(self, windows: Floats) -> Floats:
        """See `Forecaster`."""
        if self.predictor is None:
            raise DataError(f"the forecaster `{self.ref}` is not loaded", "load the detector by `ocad.load`")
        rows: NDArray[Any] = windows.reshape(-1, *self.inner).astype(NUMPY_TYPES[self.dtype])
        return self.predictor.predict({self.input: rows})[self.output].reshape(-1).astype(np.float64)

    def next_value(self, window: Sequence[float]) -> float:
        """See `Forecaster`."""
        return float(self.forecast(np.asarray(window))[0])

    def to_json(self) -> dict[str, Any]:
        """See `Forecaster`."""
        return {
            "ref": self.ref,
            "metadata_sha256": self.metadata_sha256,
            "input": {"name": self.input, "dtype": self.dtype, "shape": list(self.inner)},
            "output": self.output,
        }


def forecaster_from_json(value: Mapping[str, Any]) -> Forecaster:
    """The forecaster that `to_json` described; a registered one still without its predictor."""
    if "weights" in value:
        return Autoregression(value["weights"])
    shape = tuple(int(size) for size in value["input"]["shape"])
    names = str(value["input"]["name"]), str(value["output"]), str(value["input"]["dtype"])
    return RegisteredForecaster(str(value["ref"]), str(value["metadata_sha256"]), shape[0], *names, shape)


def resolve_forecasters(
    context: HostContext, references: Sequence[str], units: Mapping[str, str]
) -> dict[str, RegisteredForecaster]:
    """The forecasters that `references` name, by metric, loaded; `units` has the data's unit (or "") for each metric.

    Raises `DataError` for a version that is not there, forecasts no series, whose metric is not in `units` or already
    taken, or whose unit is another; `RegistryError` for one that is damaged.
    """
    found: dict[str, RegisteredForecaster] = {}
    for reference in references:
        version = _find(context, reference)
        metric = version.manifest.metric
        if metric is None or metric not in units:
            known = ", ".join(f"`{name}`" for name in units)
            message = f"the forecaster `{version.ref}` was trained on the metric `{metric}`, the detector reads {known}"
            raise DataError(message, "name a forecaster of that metric, or add the metric")
        if metric in found:
            message = f"`{found[metric].ref}` and `{version.ref}` both forecast `{metric}`"
            raise DataError(message, "name one forecaster for each metric")
        forecaster = describe_forecaster(version)
        _check_unit(version, units[metric])
        forecaster.predictor = cast("Predictor", context.load(version.ref))
        found[metric] = forecaster
    return found


def _find(context: HostContext, reference: str) -> Version:
    try:
        return context.registry.resolve(reference)
    except NotFound as error:
        hint = "register it first, or name none for an autoregression"
        raise DataError(f"there is no forecaster `{reference}` ({error.message})", hint) from None


def load_forecaster(context: HostContext, forecaster: RegisteredForecaster, owner: str) -> Predictor:
    """The predictor of a recorded forecaster of the version `owner`.

    Raises `DataError` naming both when the forecaster is gone, damaged, or not the version that was recorded.
    """
    needed = f"`{owner}` needs the forecaster `{forecaster.ref}`"
    try:
        version = context.registry.resolve(forecaster.ref)
        if version.metadata_sha256 != forecaster.metadata_sha256:
            message = f"{needed} of metadata sha256 {forecaster.metadata_sha256:.12}, not {version.metadata_sha256:.12}"
            raise DataError(message, "copy the right one there, or train the detector again")
        return cast("Predictor", context.load(forecaster.ref))
    except NotFound:
        raise DataError(f"{needed}, which is not there", "copy it there, or train the detector again") from None
    except RegistryError as error:
        hint = "copy it there again, or train the detector again"
        raise DataError(f"{needed}, which is damaged ({error.message})", hint) from None


def describe_forecaster(version: Version) -> RegisteredForecaster:
    """How to ask `version`; raises `DataError` unless it takes windows of one series and answers the next value."""
    signature = version.manifest.signature
    window, answer = _tensors(signature) if signature else (None, None)
    if window is None or answer is None or version.manifest.task != "forecast":
        said = f"task `{version.manifest.task}`" if version.manifest.task != "forecast" else "its signature"
        message = f"`{version.ref}` does not forecast the next value of one series ({said})"
        raise DataError(message, "name a version that takes `(batch, length, 1)` and answers `(batch, 1)`")
    inner = tuple(window.shape[1:])
    return RegisteredForecaster(
        version.ref, version.metadata_sha256, inner[0], window.name, answer.name, window.dtype, inner
    )


def _tensors(signature: Signature) -> tuple[Any, Any]:
    """The input `(-1, length[, 1])` and the output `(-1[, 1])`, or None for what is otherwise."""
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        return None, None
    window, answer = signature.inputs[0], signature.outputs[0]
    fits = window.dtype in ("FP32", "FP64") and len(window.shape) in (2, 3) and window.shape[2:] in ([], [1])
    fits = fits and window.shape[0] == -1 and window.shape[1] > 0
    return (window if fits else None), (answer if answer.shape in ([-1, 1], [-1]) else None)


def _check_unit(version: Version, unit: str) -> None:
    """Raises `DataError` when both the data and the version say their unit and they differ."""
    signature = version.manifest.signature
    known = (signature.inputs[0].unit if signature else None) or ""
    wanted = {"µs": "us"}.get(unit, unit)
    if known and wanted and known != wanted:
        message = (
            f"the forecaster `{version.ref}` was trained on `{version.manifest.metric}` in {known}, not in {wanted}"
        )
        raise DataError(message, "map the data to that unit in `configs/data/`, or name another forecaster")
