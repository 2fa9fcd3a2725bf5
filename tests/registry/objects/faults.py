"""An HTTP proxy before an object store that answers some requests itself, cuts answers off, or kills who asks."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit


class Request(NamedTuple):
    """A request as it came in: the how many-th since the proxy was made (from 1)."""

    number: int
    method: str
    path: str


class Fault(NamedTuple):
    """What happens to a request: an answer with `status` and S3 `code`, one cut off at `keep` bytes, or a call around it."""

    status: int = 0
    code: str = ""
    keep: int = -1
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None


def hang_up() -> None:
    """As `before` or `after` of a fault: the proxy drops the connection without an answer."""
    raise ConnectionAbortedError


class FaultyProxy:
    """Forwards to `upstream` on a free port of its own; `fault(request)` says what goes wrong (None: nothing)."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[Request] = []
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def arrived(self, method: str, path: str) -> Fault | None:
        with self._lock:
            request = Request(len(self.requests) + 1, method, path)
            self.requests.append(request)
            return self.fault(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.proxy.arrived(self.command, self.path)
        if fault and fault.before:
            fault.before()
        if fault and fault.status:
            self._answer(fault.status, {"Content-Type": "application/xml"}, _document(fault.code))
            return
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            data, headers = answer.read(), dict(answer.getheaders())
        finally:
            upstream.close()
        if fault and fault.after:
            fault.after()
        self._answer(answer.status, headers, data, fault.keep if fault else -1)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, keep: int = -1) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if keep < 0 else data[:keep])
        if 0 <= keep < len(data):
            self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: tests read `requests`."""

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle  # noqa: N815


def _document(code: str) -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
    )
