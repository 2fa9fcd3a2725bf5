"""What a run tells about its epochs: `log.csv` (a row per epoch) and TensorBoard events."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Writes each epoch to `folder/log.csv` and `folder/tensorboard/`; `history` holds the rows of a resumed run."""

    def __init__(self, folder: Path, history: Sequence[Mapping[str, float]]) -> None:
        self._path = folder / "log.csv"
        self._rows = [dict(row) for row in history]
        # events of epochs that the checkpoint does not have are dropped, since those epochs run again
        purge = len(self._rows) + 1 if self._rows else None
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def add(self, row: Mapping[str, float]) -> None:
        """Adds the row of the epoch `row["epoch"]`."""
        self._rows.append(dict(row))
        partial = self._path.with_name(".log.csv.partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self._rows[0]))
            writer.writeheader()
            writer.writerows(self._rows)
        partial.replace(self._path)
        for name, value in row.items():
            if name != "epoch":
                self._events.add_scalar(name, value, int(row["epoch"]))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
