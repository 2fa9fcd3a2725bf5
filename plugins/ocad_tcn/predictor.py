"""What answers: the trained module in its run, and the stored graph in a registered version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.errors import DataError
from ocad.export.runtime import OnnxPredictor, check_inputs
from ocad_registry import Signature, Tensor

if TYPE_CHECKING:
    import pandas as pd

    from ocad.catalogue import DataSource
    from ocad.protocols import Arrays
    from ocad_registry import Version
    from ocad_tcn.forecaster import Forecaster

INPUT, OUTPUT = "input", "forecast"


def make_signature(length: int, deviation: float, unit: str) -> Signature:
    """`input` `(-1, length, 1)` to `forecast` `(-1, 1)`, raw values of `unit`; `deviation` is the scale of differences."""
    name = {"µs": "us"}.get(unit, unit) or None
    return Signature(
        inputs=[Tensor(name=INPUT, dtype="FP32", shape=[-1, length, 1], unit=name)],
        outputs=[Tensor(name=OUTPUT, dtype="FP32", shape=[-1, 1], unit=name, scale=deviation)],
    )


class TorchForecaster:
    """A trained `Forecaster` as a predictor."""

    def __init__(self, forecaster: Forecaster, unit: str) -> None:
        self.forecaster = forecaster
        architecture = forecaster.architecture
        self.signature = make_signature(architecture.length, architecture.deviation, unit)

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """`forecast` `(batch, 1)` for `input` `(batch, length, 1)`, raw values; see `Predictor.predict`."""
        import torch

        window = check_inputs(self.signature, inputs)[INPUT]
        with torch.inference_mode():
            return {OUTPUT: self.forecaster(torch.from_numpy(np.ascontiguousarray(window))).numpy()}


class StoredForecaster(OnnxPredictor):
    """A registered version: arrays by `predict`, rows of a data set by `predict_source`."""

    def __init__(self, version: Version) -> None:
        signature = version.manifest.signature
        if signature is None:
            raise DataError(f"`{version.ref}` has no signature", "train and register it again")
        super().__init__(version.file("onnx"), signature)
        self.metric = version.manifest.metric or ""
        self.length = int(signature.inputs[0].shape[1])

    def predict_source(self, source: DataSource) -> pd.DataFrame:
        """One row per forecast: `timestamp` and `endpoint` of the row it is for, `forecast`, and the `actual` value."""
        import pandas as pd

        from ocad.timeseries.frame import read_frame
        from ocad.timeseries.windows import make_windows

        windows = make_windows(read_frame(source, [self.metric], varying=False).data, self.metric, self.length)
        if len(windows) == 0:
            message = f"data `{source.name}` has no unbroken {self.length} + 1 rows of `{self.metric}`"
            raise DataError(message, "give a longer series")
        forecast = predict_windows(self, windows.sequence)
        columns = {"timestamp": pd.DatetimeIndex(windows.timestamp, tz="UTC"), "endpoint": windows.endpoint}
        return pd.DataFrame({**columns, "forecast": forecast, "actual": windows.target})


def predict_windows(predictor: Any, sequence: NDArray[np.float64], batch: int = 4096) -> NDArray[np.float64]:
    """The forecasts `(n,)` of any predictor of this plugin for windows `(n, length)`."""
    rows = sequence[:, :, None].astype(np.float32)
    parts = [predictor.predict({INPUT: rows[i : i + batch]})[OUTPUT][:, 0] for i in range(0, len(rows), batch)]
    return np.concatenate(parts).astype(np.float64)
