"""Couriers carry notifications from the outbox to their sinks: one thread per sink, each group in order, until they arrive."""

from __future__ import annotations

import fcntl
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ocad.detection.alerts.episodes import Episodes
from ocad.detection.alerts.notices import Notice
from ocad.detection.alerts.settings import DeliverySettings
from ocad.detection.alerts.sinks import DeliveryError, Sink
from ocad.detection.alerts.store import Alert, AlertStore, StoreError
from ocad.errors import OcadError, printable

POLL_S = 1.0
"""How often the outbox is looked at for what another process wrote, in real seconds."""

PATIENCE_S = 60.0
"""How long a courier waits for its turn to write, in real seconds: a busy detection goes first."""


class Backoff:
    """Waits that double from `first_s` to `longest_s`, each cut at random to between a half and the whole."""

    def __init__(self, settings: DeliverySettings, chance: random.Random) -> None:
        self._settings = settings
        self._chance = chance
        self.failures = 0

    def next_s(self) -> float:
        """How long to wait after one more failure."""
        whole = min(self._settings.longest_s, self._settings.first_s * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return whole * self._chance.uniform(0.5, 1)


class Lease:
    """The right to deliver to one sink, which one process at a time has; the kernel takes it back when that one dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def take(self) -> bool:
        """Whether it is ours now."""
        if self._file is None:
            file = self._path.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._file = file
        return True

    def give_back(self) -> None:
        """Another process may have it."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(slots=True)
class _Failing:
    """A group whose next notification did not get through."""

    backoff: Backoff
    again_at: float = 0.0
    """By the monotonic clock."""


class Courier:
    """Delivers to one sink what the outbox in `folder` holds for it.

    A notification is marked as delivered right after the sink has it, and the next is not begun before. If the process
    is killed between the two, the same one with the same key is sent again. One that fails is tried again for
    `give_up_s`; meanwhile those of other groups pass it, where the sink lets them.
    """

    def __init__(
        self, folder: Path, sink: Sink, settings: DeliverySettings, warn: Callable[[str], None], chance: random.Random
    ) -> None:
        self._folder = folder
        self._sink = sink
        self._settings = settings
        self._warn = warn
        self._chance = chance
        self._backoff = Backoff(settings, chance)
        self._resume_at = 0.0
        """When the sink as a whole is tried again, by the monotonic clock."""
        self._failing: dict[str, _Failing] = {}
        self._failures = 0
        """Failed attempts since all was well."""
        self._sent = ""
        """The key that the sink has, for the case that the outbox could not be marked."""
        self._resend_at = 0.0
        self._wake = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"alerts-{sink.name}", daemon=True)

    def start(self) -> None:
        """Begins to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def stop(self, deadline: float) -> None:
        """Delivers what waits, until `deadline` by the monotonic clock; what is left then stays in the outbox."""
        self._deadline = deadline
        self._wake.set()

    def join(self) -> None:
        """Waits for the end after `stop`; an answer that is awaited longer than that is left to the next start."""
        if self._deadline is not None:
            self._thread.join(max(0.0, self._deadline - time.monotonic()) + POLL_S)

    def _run(self) -> None:
        lease = Lease(self._folder / f"{self._sink.name}.lock")
        try:
            while not self._open_and_deliver(lease):
                pass
        finally:
            lease.give_back()

    def _open_and_deliver(self, lease: Lease) -> bool:
        """Whether it is time to end; a store that fails is opened again."""
        try:
            if not lease.take():
                return self._rest(POLL_S, idle=True)
            with closing(AlertStore(self._folder, create=False, patience_s=PATIENCE_S)) as store:
                episodes = Episodes(store)
                episodes.outbox.readmit(self._sink.name)
                while True:
                    pause, idle = self.step(episodes)
                    if self._rest(pause, idle=idle):
                        return True
        except Exception as error:  # whatever it was, the next notification must not wait for a restart
            return self._rest(self._failed(error), idle=False)

    def step(self, episodes: Episodes) -> tuple[float, bool]:
        """Delivers the next notification; returns how long to wait now, and whether for lack of work."""
        outbox, name, now = episodes.outbox, self._sink.name, time.monotonic()
        if now < self._resume_at:
            return self._resume_at - now, False
        notice = outbox.head(name, [group for group, failing in self._failing.items() if failing.again_at > now])
        try:
            if notice is None:
                self._refresh(episodes)
            elif notice.key != self._sent:
                self._deliver(notice)
                self._sent = notice.key
            if notice is not None:
                outbox.mark(name, notice.seq, "delivered")
        except (OcadError, OSError) as error:
            return self._try_again_later(episodes, notice, error), False
        if notice is not None:
            self._failing.pop(_group(notice), None)
        if notice is not None or not self._failing:
            self._well()
        if notice is not None:
            return 0, False
        if self._failing:
            return max(0.0, min(failing.again_at for failing in self._failing.values()) - now), False
        return POLL_S, True

    def _deliver(self, notice: Notice) -> None:
        try:
            self._sink.deliver(notice)
        except (OcadError, OSError):
            raise
        except Exception as error:  # a fault over this notification must not keep the others back
            raise DeliveryError(f"{type(error).__name__}: {error}", answered=True) from error

    def _well(self) -> None:
        """The sink is there; what failed while it was away need not wait any more."""
        if self._backoff.failures:
            for failing in self._failing.values():
                failing.again_at = 0.0
            self._backoff.failures = 0
        if self._failures and not self._failing:
            self._warn(f"alerts reach `{self._sink.name}` again after {self._failures} failed attempts")
            self._failures = 0

    def _refresh(self, episodes: Episodes) -> None:
        """Tells the sink again which alerts fire, when that is due."""
        if self._sink.resend_s is None or time.monotonic() < self._resend_at:
            return
        firing = episodes.store.find(Alert, "state != 'resolved' AND labels != ''")
        self._sink.refresh([episodes.describe(alert) | {"labels": json.loads(alert.labels)} for alert in firing])
        self._resend_at = time.monotonic() + self._sink.resend_s

    def _try_again_later(self, episodes: Episodes, notice: Notice | None, error: Exception) -> float:
        """Notes the failure; returns how long to wait. What fails for too long is set aside."""
        cause, name = _cause(error), self._sink.name
        if notice is None or notice.key == self._sent:
            return self._failed(error)
        spent = False
        with suppress(StoreError):
            spent = episodes.outbox.failing_s(name, notice.seq) >= self._settings.give_up_s
            episodes.outbox.mark(name, notice.seq, "refused" if spent else "waiting", cause)
        group = _group(notice)
        if spent:
            self._failing.pop(group, None)
            self._warn(
                f"`{name}` did not take the notification `{notice.key}`: {cause}; it is set aside until the next start"
            )
        if not self._sink.overtaking:
            return 0.0 if spent else self._failed(error)
        if not spent:
            failing = self._failing.setdefault(group, _Failing(Backoff(self._settings, self._chance)))
            failing.again_at = time.monotonic() + failing.backoff.next_s()
        answered = isinstance(error, DeliveryError) and error.answered
        if not answered:
            return self._failed(error)
        self._tell(error)
        self._resume_at = time.monotonic() + error.wait_s if isinstance(error, DeliveryError) else 0.0
        return 0.0

    def _failed(self, error: Exception) -> float:
        """The sink, or the store, is left alone for a while; returns how long."""
        self._tell(error)
        wait = self._backoff.next_s()
        self._resume_at = time.monotonic() + wait
        return wait

    def _tell(self, error: Exception) -> None:
        """Warns of the first failure of a row."""
        if self._failures == 0:
            self._warn(f"cannot deliver alerts to `{self._sink.name}`: {_cause(error)}; they are kept and tried again")
        self._failures += 1

    def _rest(self, seconds: float, *, idle: bool) -> bool:
        """Waits up to `seconds`, or for new work; whether it is time to end."""
        if self._deadline is not None:
            if idle or time.monotonic() + seconds >= self._deadline:
                return True
            time.sleep(seconds)
        elif seconds > 0:
            self._wake.wait(min(seconds, POLL_S))
            self._wake.clear()
        return False


def _group(notice: Notice) -> str:
    return str(notice.body.get("group", ""))


def _cause(error: Exception) -> str:
    if isinstance(error, OcadError):
        return printable(error.message)
    reason = getattr(error, "strerror", None)
    return printable(str(reason).lower() if reason else f"{type(error).__name__}: {error}")
