"""A deadline for a whole exchange with a server: one that answers a byte now and then must not hold its caller."""

from __future__ import annotations

import functools
import heapq
import http.client
import itertools
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, Request


class Deadline:
    """Within the block, sockets that were given to `watch` are shut down after `seconds`; `passed` says whether they were."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._seconds = seconds
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()

    def watch(self, connection: socket.socket) -> None:
        """Shuts `connection` down too when it is time; at once when it was."""
        with self._lock:
            self._sockets.append(connection)
            if self.passed:
                _shut(connection)

    def expire(self) -> None:
        """It is time; without effect after the block."""
        with self._lock:
            self.passed = bool(self._seconds)
            for connection in self._sockets:
                _shut(connection)

    def __enter__(self) -> Deadline:
        _keeper().keep(time.monotonic() + self._seconds, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._sockets.clear()
            self._seconds = 0.0


class _Keeper:
    """One thread for all deadlines of this process: a thread for each would cost more than the exchange."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Deadline]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="deadlines", daemon=True).start()

    def keep(self, moment: float, deadline: Deadline) -> None:
        """Expires `deadline` at `moment` by the monotonic clock."""
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._numbers), deadline))
            if self._due[0][2] is deadline:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                deadline = heapq.heappop(self._due)[2]
            deadline.expire()


@functools.cache
def _keeper() -> _Keeper:
    return _Keeper()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        # not that of a TLS connection, which would wait for the peer's farewell
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def watched_by(deadline: Deadline) -> tuple[HTTPHandler, HTTPSHandler]:
    """Handlers for `urllib.request.build_opener` whose connections `deadline` watches from their first byte on."""

    def connect(kind: type[http.client.HTTPConnection], host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)

        def create(*arguments: Any, **named: Any) -> socket.socket:
            made = socket.create_connection(*arguments, **named)
            deadline.watch(made)
            return made

        connection._create_connection = create  # type: ignore[attr-defined]  # where http.client itself lets it be replaced
        return connection

    class Plain(HTTPHandler):
        def http_open(self, req: Request) -> http.client.HTTPResponse:
            return self.do_open(lambda host, **options: connect(http.client.HTTPConnection, host, **options), req)

    class Secure(HTTPSHandler):
        def https_open(self, req: Request) -> http.client.HTTPResponse:
            return self.do_open(lambda host, **options: connect(http.client.HTTPSConnection, host, **options), req)

    return Plain(), Secure()
