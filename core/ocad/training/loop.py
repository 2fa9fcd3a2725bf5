"""The training loop: shuffled batches, schedule, early stopping, averaging of the last epochs, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ocad.errors import CheckpointError, ConfigError, OcadError, nearest
from ocad.training.averaging import WeightAverage, has_batch_norm, refresh_batch_norm
from ocad.training.batches import BLOCK, Batch, count_rows, in_order, shuffled
from ocad.training.checkpoint import load_checkpoint, save_checkpoint
from ocad.training.interrupt import Interrupt, deferred_interrupt
from ocad.training.log import RunLog
from ocad.training.optimizers import make_optimizer
from ocad.training.options import TrainOptions
from ocad.training.sampling import AllRows, EpochRows
from ocad.training.schedule import learning_share, set_learning_rate
from ocad.training.step import Loss, Stepper

if TYPE_CHECKING:
    from ocad.protocols import Progress, ProgressTask

Validate = Callable[[nn.Module], Mapping[str, float]]
"""`validate(model)`: validation metrics by name, called in evaluation mode without gradients; lower is better."""

EpochEnded = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is trained and what is watched.

    `monitor` names the value of `validate` whose lowest epoch is the best one; `TrainOptions.monitor` overrules it.
    `rows` are the training rows of each epoch where they are not all of them, as `ClickLoss.rows` has them. With
    `initial` the model may be left as it began, where no epoch is better: right for one that begins as a baseline.
    """

    loss: Loss
    validate: Validate
    monitor: str = "val_loss"
    rows: EpochRows | None = None
    initial: bool = True


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who hears of the epochs: a progress line named `label`, and `epoch_ended(epoch, row)`."""

    progress: Progress | None = None
    epoch_ended: EpochEnded = lambda _epoch, _row: None
    label: str = "training"


@dataclass(frozen=True, slots=True)
class FitResult:
    """`history` has a row per epoch as in `log.csv`; `best_epoch` is 0 where no epoch improved on the initial model.

    With `averaged`, the model holds the mean weights of the last epochs, which were better than the best epoch. `parts` is
    what batches were computed in at the end: more than `TrainOptions.accumulate` when memory ran out.
    """

    history: Sequence[Mapping[str, float]]
    best_epoch: int
    best_value: float
    checkpoints: Mapping[str, Path]
    averaged: bool = False
    parts: int = 1


@dataclass(slots=True)
class _State:
    """Where a run stands: `batch` steps of epoch `epoch + 1` are done, with `loss_sum` over their rows."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best_epoch: int = 0
    best_value: float = math.inf
    parts: int = 1
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    model: nn.Module,
    training: Batch,
    objective: Objective,
    options: TrainOptions,
    folder: Path,
    *,
    seed: int,
    groups: Iterable[dict[str, Any]] | None = None,
    reporting: Reporting | None = None,
    resume: bool = False,
    follow: FitResult | None = None,
) -> FitResult:
    """Trains `model` in place on the rows of `training` and leaves it at its best epoch; see `Objective.initial`.

    Writes `checkpoints/` (`epoch_010.pth` every `checkpoint_every` epochs, `best.pth`, `last.pth`), `log.csv` and
    `tensorboard/` under `folder`. `groups` are the optimizer's parameter groups where they differ in rate or decay.
    With `follow` nothing is validated: it trains for as long as that training found best, at the same rates, and averages
    where that was better; `history` is that training's.
    With `resume` it goes on from `last.pth` to the same result, bit for bit, as an unbroken run on the same machine.

    Raises `CheckpointError` when there is nothing sound to resume, `ConfigError` when a monitored metric is not measured,
    `OcadError` when the loss is no longer finite or memory runs out, and `KeyboardInterrupt` on Ctrl-C once `last.pth` is
    written.
    """
    with _torch_settings(options.threads):
        loop = _Loop(model, training, objective, options, folder, seed=seed, groups=groups, follow=follow)
        if resume:
            loop.restore()
        else:
            loop.begin()
        with RunLog(folder, loop.state.history) as log, deferred_interrupt() as interrupt:
            loop.run(log, interrupt, reporting or Reporting())
        return loop.finish()


def mean_loss(loss: Loss, data: Batch, batch_size: int = 8192) -> Validate:
    """A `Validate` whose `val_loss` is the mean of `loss` over the rows of `data`."""

    def validate(model: nn.Module) -> dict[str, float]:
        total = sum(loss(model, batch).item() * count_rows(batch) for batch in in_order(data, batch_size))
        return {"val_loss": total / count_rows(data)}

    return validate


@contextmanager
def _torch_settings(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    # moments of parameters that no longer move decay into denormals, which cost a hundred times a normal number
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


_OWN = ("epoch", "train_loss", "learning_rate", "seconds")
"""What the loop writes into an epoch's row beside the metrics of `validate`."""


class _Loop:
    """The model, its optimizer and the state of a run."""

    def __init__(
        self,
        model: nn.Module,
        training: Batch,
        objective: Objective,
        options: TrainOptions,
        folder: Path,
        *,
        seed: int,
        groups: Iterable[dict[str, Any]] | None,
        follow: FitResult | None,
    ) -> None:
        self.follow = follow
        self.epochs = options.epochs
        if follow:
            self.epochs = len(follow.history) if follow.averaged else follow.best_epoch
        self.model, self.training, self.objective, self.options = model, training, objective, options
        self.seed = seed
        self.checkpoints = folder / "checkpoints"
        self.state = _State(parts=options.accumulate)
        self.average = WeightAverage()
        self.drawn = objective.rows or AllRows(count_rows(training))
        # one row has no variance: batch normalisation cannot train on a last batch of it
        alone = self.drawn.count % options.batch_size == 1 and has_batch_norm(model)
        self.rows = self.drawn.count - alone
        self.steps = math.ceil(self.rows / options.batch_size)
        self.optimizer = make_optimizer(model, options, groups)
        self.stepper = Stepper(model, self.optimizer, objective.loss, options)

    def begin(self) -> None:
        """Seeds torch and makes the initial model, where it may stay, the first candidate for the best one."""
        torch.manual_seed(self.seed)
        if self.objective.initial and not self.follow:
            self.state.best_value = self._watched(self._validate())
        self._save("best")

    def run(self, log: RunLog, interrupt: Interrupt, reporting: Reporting) -> None:
        """Trains until the last epoch, early stopping, or Ctrl-C."""
        with _progress_line(reporting, self.epochs) as line:
            line.advance(self.state.epoch)
            while self.state.epoch < self.epochs and not self._exhausted():
                train_loss = self._train_epoch(interrupt, line)
                row = self._close_epoch(train_loss)
                log.add(row)
                watched = self.options.monitor or [self.objective.monitor]
                line.advance(0, **{name: row[name] for name in watched})
                reporting.epoch_ended(self.state.epoch, row)
                if interrupt.requested:
                    raise KeyboardInterrupt

    def finish(self) -> FitResult:
        """The weights of the best epoch, or of the average if that is better still, into the model."""
        state, averaged = self.state, self.average.count > 0 and self._average_is_better()
        self.model.load_state_dict(load_checkpoint(self.checkpoints / "best.pth")["model"])
        self.model.eval()
        files = {path.stem: path for path in sorted(self.checkpoints.glob("*.pth"))}
        return FitResult(state.history, state.best_epoch, state.best_value, files, averaged, self.stepper.parts)

    def _average_is_better(self) -> bool:
        """Measures the average of the last epochs, and keeps it as `best.pth` where its value is the lowest."""
        self.average.into(self.model)
        order = self.drawn.order(self.seed, self.state.epoch)[: self.rows]
        batches = shuffled(self.training, self.options.batch_size, order)
        refresh_batch_norm(self.model, self.objective.loss, batches)
        value = self.follow.best_value if self.follow else self._watched(self._validate())
        if value >= self.state.best_value:
            return False
        self.state.best_value = value
        self._save("best")
        return True

    def restore(self) -> None:
        """Takes up `last.pth`: weights, optimizer, position and random state."""
        path = self.checkpoints / "last.pth"
        saved = load_checkpoint(path)
        if saved["options"] != self.options.model_dump() or saved["seed"] != self.seed or saved["rows"] != self.rows:
            hint = "resume with the run's own configuration and data, or start a new run"
            raise CheckpointError(f"the checkpoint `{path}` was written under other options, seed or data", hint)
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError, KeyError):
            hint = "resume with the run's own configuration"
            raise CheckpointError(f"the checkpoint `{path}` belongs to another network", hint) from None
        self.state = _State(**saved["state"])
        self.stepper.parts = self.state.parts
        self.average.restore(saved["average"])
        torch.set_rng_state(saved["random_state"])

    def _train_epoch(self, interrupt: Interrupt, line: ProgressTask) -> float:
        """The mean training loss of one epoch, or of what was left of it."""
        state, options = self.state, self.options
        started = time.perf_counter() - state.seconds
        order = self.drawn.order(self.seed, state.epoch)[: self.rows]
        values = [self._watched(row) for row in state.history]
        self.model.train()
        for batch in shuffled(self.training, options.batch_size, order, state.batch):
            step = state.epoch * self.steps + state.batch
            set_learning_rate(self.optimizer, learning_share(options, step, self.steps, values))
            state.loss_sum += self._step(batch) * count_rows(batch)
            state.batch += 1
            if state.batch % BLOCK == 0:
                line.advance(BLOCK / self.steps)
            if interrupt.requested and state.batch < self.steps:
                state.seconds = time.perf_counter() - started
                self._save("last")
                raise KeyboardInterrupt
        line.advance((self.steps % BLOCK) / self.steps)
        state.seconds = time.perf_counter() - started
        return state.loss_sum / self.rows

    def _step(self, batch: Batch) -> float:
        value = self.stepper.step(batch)
        self.state.parts = self.stepper.parts
        if not math.isfinite(value):
            message = f"the training loss is no longer finite in epoch {self.state.epoch + 1}"
            raise OcadError(message, "lower the learning rate, or look for extreme values in the data")
        return value

    def _close_epoch(self, train_loss: float) -> dict[str, float]:
        """Validates, records the epoch's row and writes the checkpoints that are due."""
        state = self.state
        measured = self._validate()
        state.epoch += 1
        row = {
            "epoch": state.epoch,
            "train_loss": train_loss,
            **measured,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(state.seconds, 4),
        }
        state.history.append(row)
        state.batch, state.loss_sum, state.seconds = 0, 0.0, 0.0
        value = self._watched(measured)
        if state.epoch > self.options.epochs - self.options.average_epochs:
            self.average.add(self.model)
        better = value < state.best_value - self.options.min_delta
        if better:
            state.best_epoch, state.best_value = state.epoch, value
            self._save("best")
        if state.epoch % self.options.checkpoint_every == 0:
            self._save(f"epoch_{state.epoch:03d}")
        self._save("last")
        return row

    def _exhausted(self) -> bool:
        return 0 < self.options.patience <= self.state.epoch - self.state.best_epoch

    def _watched(self, measured: Mapping[str, float]) -> float:
        """The value that is to fall: the monitored one, or minus the weighted sum that is to rise."""
        weights = self.options.monitor or {self.objective.monitor: -1.0}
        for name in weights:
            if name not in measured:
                raise ConfigError(
                    f"`monitor` names the metric `{name}`, which is not measured", nearest(name, measured)
                )
        return -sum(weight * measured[name] for name, weight in weights.items())

    def _validate(self) -> dict[str, float]:
        if self.follow:
            row = self.follow.history[self.state.epoch]
            return {name: value for name, value in row.items() if name not in _OWN}
        self.model.eval()
        with torch.no_grad():
            return dict(self.objective.validate(self.model))

    def _save(self, name: str) -> None:
        state = {
            "options": self.options.model_dump(),
            "seed": self.seed,
            "rows": self.rows,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state(),
            "state": {slot: getattr(self.state, slot) for slot in _State.__slots__},
            "random_state": torch.get_rng_state(),
        }
        save_checkpoint(self.checkpoints / f"{name}.pth", state)


class _Silence:
    """A progress line nobody reads."""

    def advance(self, steps: float = 1, **values: float) -> None:
        """Shows nothing."""


@contextmanager
def _progress_line(reporting: Reporting, total: float) -> Iterator[ProgressTask]:
    if reporting.progress is None:
        yield _Silence()
        return
    with reporting.progress.task(reporting.label, total) as line:
        yield line
