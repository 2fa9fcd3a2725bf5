"""The far end of a probe: answers what comes in, through any channel, and survives a link that goes down."""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from ocad.probe.channel import Arrival, Channel

POLL_SECONDS = 0.5

Answer = Callable[[Arrival], bytes | None]
"""The reply to what came in; None: it is not to be answered."""


@dataclass(slots=True)
class Responder:
    """Sends `answer(arrival)` back to whoever sent it."""

    channel: Channel
    answer: Answer
    answered: int = field(init=False, default=0)
    _stopped: bool = field(init=False, default=False)

    def run(self) -> None:
        """Answers until `stop` is called or KeyboardInterrupt is raised, then closes the channel."""
        with closing(self.channel):
            while not self._stopped:
                if select.select([self.channel], [], [], POLL_SECONDS)[0]:
                    self._answer_one()

    def stop(self) -> None:
        """Ends `run` within a fraction of a second."""
        self._stopped = True

    def _answer_one(self) -> None:
        try:
            arrival = self.channel.receive()
            reply = self.answer(arrival) if arrival.sender else None
            if reply is not None:
                self.channel.send(reply, arrival.sender)
                self.answered += 1
        except OSError:  # a link that is down, or a peer that is gone: the next one may get through
            pass
