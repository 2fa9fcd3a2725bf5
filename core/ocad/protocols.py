"""What a loaded model can do, and how long work reports itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by the signature's names; the first axis of each is the batch."""


@runtime_checkable
class Predictor(Protocol):
    """A model that answers arrays with arrays."""

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name, `(batch, …)` each; a bare array stands for the only input of a one-input signature.

        Raises `OcadError` naming the input when a name, dtype or shape does not fit the signature.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """A model that scores the rows of a frame (DESIGN §7); higher is more anomalous, always."""

    def fit(self, frame: pd.DataFrame) -> None:
        """Fits on mostly normal rows, anew; a detector that is only ever loaded may refuse with `UsageError`."""
        ...

    def score(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """One score for each row of `frame`, in its order."""
        ...

    def state(self) -> dict[str, Any]:
        """The streaming state as JSON-able values; `restore` of it continues exactly."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        ...


class ProgressTask(Protocol):
    """One line of progress."""

    def advance(self, steps: float = 1, **values: float) -> None:
        """`steps` further; `values` (a loss, a rate) are shown beside the bar."""
        ...


class Progress(Protocol):
    """Progress on stderr: a rich bar on a terminal, plain lines elsewhere."""

    def task(self, label: str, total: float | None = None) -> AbstractContextManager[ProgressTask]:
        """Opens a line named `label`; it closes when the context ends."""
        ...
