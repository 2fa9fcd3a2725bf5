"""What a click-through plugin provides: a learner, and the scorer that it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ocad_registry import Signature, Tensor

if TYPE_CHECKING:
    from ocad.calibration.calibrators import Calibrator
    from ocad.contexts import Artifact, RunContext
    from ocad.protocols import Arrays
    from ocad.tabular.dataset import Clicks
    from ocad.tabular.encoder import Encoder

IDS, NUMERICS, PROBABILITY, LOGIT = "ids", "numerics", "probability", "logit"
"""The served graph's inputs and output, and its inner value before calibration."""


@dataclass(frozen=True, slots=True)
class InputShape:
    """What a model is built for: the fields of the fused embedding table and the numbers beside them."""

    offsets: tuple[int, ...]
    """The first row of each field in the fused table."""
    sizes: tuple[int, ...]
    """How many rows of the table each field has."""
    dimensions: tuple[int | None, ...]
    """The embedding size of each field; None: the model's own."""
    rows: int
    """Rows of the fused table."""
    fills: tuple[float, ...]
    """What each number is where it is missing (NaN)."""

    @classmethod
    def of(cls, encoder: Encoder) -> InputShape:
        """The shape of what `encoder` gives."""
        fields = encoder.fields
        scalers = (encoder.scalers.get(name) for name in encoder.numerics)
        return cls(
            offsets=tuple(field.offset for field in fields),
            sizes=tuple(field.size for field in fields),
            dimensions=tuple(field.embedding for field in fields),
            rows=encoder.table_rows,
            fills=tuple(scaler.mean if scaler and scaler.transform == "none" else 0.0 for scaler in scalers),
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The graph's inputs: a model without fields takes no ids, one without numbers no numerics."""
        return (*((IDS,) if self.offsets else ()), *((NUMERICS,) if self.fills else ()))

    def arrays(self, ids: NDArray[np.int64], numerics: NDArray[np.float32]) -> dict[str, NDArray[np.generic]]:
        """The arrays of `inputs`."""
        given: dict[str, NDArray[np.generic]] = {IDS: ids, NUMERICS: numerics}
        return {name: given[name] for name in self.inputs}

    def signature(self) -> Signature:
        """`ids` INT64 `(-1, fields)` and `numerics` FP32 `(-1, m)` to `probability` FP32 `(-1, 1)`."""
        tensors = {
            IDS: Tensor(name=IDS, dtype="INT64", shape=[-1, len(self.offsets)]),
            NUMERICS: Tensor(name=NUMERICS, dtype="FP32", shape=[-1, len(self.fills)]),
        }
        return Signature(inputs=[tensors[name] for name in self.inputs], outputs=[probability_tensor()])


def probability_tensor() -> Tensor:
    """The output of every served click-through graph."""
    return Tensor(name=PROBABILITY, dtype="FP32", shape=[-1, 1], scale=1.0)


class Scorer(Protocol):
    """A trained model before calibration."""

    def logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """Log-odds `(n,)` of `ids` and `numerics`, as the exported graph computes them (float32)."""
        ...

    def exact_logit(self, inputs: Arrays) -> NDArray[np.float64]:
        """The same in float64: what the graph's parity is measured against."""
        ...

    def export(self, calibrator: Calibrator, folder: Path) -> list[Artifact]:
        """`model.onnx` with outputs `logit` and `probability`, both `(n, 1)`, then the model in its own format."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a learner returns; history and checkpoints as in `Trained`."""

    scorer: Scorer
    history: Sequence[Mapping[str, float]] = ()
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    again: Callable[[Clicks], Scorer] | None = None
    """`again(rows)`: a new scorer of these rows, trained for as long as this one was; None: the learner cannot."""


class Learner(Protocol):
    """Trains a scorer on the `train` part, watching the `validation` part."""

    def fit(self, context: RunContext, train: Clicks, validation: Clicks, shape: InputShape) -> Fitted:
        """The scorer of lowest log loss on the validation part; resumes when `context.resume`."""
        ...
