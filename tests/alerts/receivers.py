"""A real HTTP receiver on a free port of this machine, whose answers a test decides."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What arrived, in its order; `answer` gives the status of the next request by its number, from 1."""

    port: int = 0
    answer: Callable[[int], int] = lambda number: 204
    answer_to: Callable[[Any], int] | None = None
    """Or by its body."""
    headers: dict[str, str] = field(default_factory=dict)
    """What every answer has besides."""
    answered: Callable[[int], None] = lambda number: None
    """Called after the answer to a request is on its way."""
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def keys(self) -> list[str]:
        """The idempotency keys of all requests, doubled ones included."""
        return [headers["Idempotency-Key"] for _, headers, _ in self.requests]

    def wait_for(self, count: int, seconds: float = 300) -> None:
        """Returns when `count` requests have arrived; fails the test when they do not."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.requests) >= count, seconds), (
                f"{len(self.requests)} of {count}"
            )

    def wait_until(self, true: Callable[[], bool], seconds: float = 30) -> None:
        """Returns when `true` says so of what has arrived; fails the test when it never does."""
        with self.arrived:
            assert self.arrived.wait_for(true, seconds), f"waited in vain; {len(self.requests)} requests"


@contextmanager
def receiving(receiver: Receiver) -> Iterator[Receiver]:
    """Serves `receiver` on its port, or a free one, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # its sender died on the way
                self.close_connection = True
                return
            with receiver.arrived:
                receiver.requests.append((self.path, dict(self.headers), json.loads(body)))
                number = len(receiver.requests)
                receiver.arrived.notify_all()
            status = receiver.answer_to(json.loads(body)) if receiver.answer_to else receiver.answer(number)
            with suppress(ConnectionError):
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", receiver.url)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                self.wfile.flush()
            receiver.answered(number)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


DRIPS = {
    "status": (b"", b"H"),
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x"),
}


@contextmanager
def dripping(part: str) -> Iterator[int]:
    """A receiver whose answers never end in that part; gives its port."""
    begin, drop = DRIPS[part]
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(begin)
            while not over.wait(0.02):
                connection.sendall(drop)

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError):
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        over.set()
        thread.join()


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float = 300) -> None:
    """Returns when `true` says so; fails the test when it never does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
