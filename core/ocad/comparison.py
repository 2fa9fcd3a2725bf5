"""Two registered versions on the same rows, paired: `ocad compare`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ocad.errors import DataError, UsageError
from ocad.versions import Rows, rows_again

if TYPE_CHECKING:
    from ocad.metrics.paired import Difference, Verdict
    from ocad.session import Session
    from ocad.tabular.dataset import Clicks
    from ocad_registry import Version


@dataclass(frozen=True, slots=True)
class Comparison:
    """What can be said of `second` against `first` on `rows` rows, the `part` of `data`."""

    first: Version
    second: Version
    data: str
    part: str
    rows: int
    differences: list[Difference]

    @property
    def verdict(self) -> Verdict:
        """Of the second version: `better`, `worse` or `not shown better`, by AUC and log loss."""
        from ocad.metrics.paired import overall

        return overall(self.differences)

    def to_json(self) -> dict[str, Any]:
        """The contract of `compare --json`."""
        return {
            "first": self.first.ref,
            "second": self.second.ref,
            "data": {"name": self.data, "part": self.part, "rows": self.rows},
            "metrics": [one.to_json() for one in self.differences],
            "verdict": self.verdict,
        }


def compare_versions(
    first: Version, second: Version, session: Session, data: str | None, part: str | None = None
) -> Comparison:
    """Both versions asked for the same rows, each with its own encoder; `data` is that of the second unless given.

    Without `part`, all rows of given data, and the test part of the second's own. Raises `UsageError` for versions that are
    no click models, `DataError` where the two do not read the same labels.
    """
    from ocad.metrics.paired import compare_clicks

    for version in (first, second):
        if version.manifest.task != "ctr":
            raise UsageError(
                f"`{version.ref}` is no click model (its task is `{version.manifest.task}`)",
                "measure each with `ocad evaluate REF --data …`",
            )
    source = data or (second.manifest.data.name if second.manifest.data else "")
    wanted = part or ("all" if data else "test")
    with tempfile.TemporaryDirectory(prefix="ocad-") as folder:
        one, clicks, before = _answer(first, session, source, wanted, Path(folder, "first"))
        _, others, after = _answer(second, session, source, wanted, Path(folder, "second"))
    if not np.array_equal(clicks.label, others.label):
        raise DataError(
            f"`{first.ref}` and `{second.ref}` read different rows or labels from `{source}`",
            "compare versions of one label, on all rows where they split the data differently",
        )
    differences = compare_clicks(
        clicks.label, before, after, seed=one.context.seed, weight=others.weight, group=others.group
    )
    return Comparison(first, second, one.context.data.name, one.part, one.count, differences)


def _answer(
    version: Version, session: Session, data: str, part: str, folder: Path
) -> tuple[Rows, Clicks, NDArray[np.float64]]:
    """The rows, prepared for `version`, and its probabilities `(n,)`."""
    from ocad.clicks.predictor import predict_clicks
    from ocad.tabular.dataset import load_clicks

    model: Any = session.load(version.ref)
    with rows_again(version, session, data, folder, part) as rows:
        clicks = load_clicks(rows.prepared.splits["test"])
    return rows, clicks, predict_clicks(model, clicks)[0]
