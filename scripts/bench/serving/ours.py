"""The server under measurement: the release binary as `ocad serve` starts it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from pathlib import Path

from ocad.serving import find_onnxruntime, find_server
from serving.processes import START_S, Server

TITLE = "ocad-server"


class Ours:
    """A running `ocad-server`, ready; `ready_ms` is the time from its start to that."""

    def __init__(
        self, registry: Path, cache: Path, *options: str, verdicts: str = "verdicts", log: str = "warn"
    ) -> None:
        command = [str(find_server()), "--registry", str(registry), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
        command += ["--onnxruntime", str(find_onnxruntime()), "--cache", str(cache / verdicts), "--log", log]
        started = time.perf_counter()
        self.server = Server([*command, *options], cache / "ocad-server.log")
        try:
            addresses = self._addresses()
            self.http, self.grpc = addresses["http"], addresses["grpc"]
            self._wait()
        except BaseException:
            self.server.stop()
            raise
        self.ready_ms = (time.perf_counter() - started) * 1e3

    def _addresses(self) -> dict[str, str]:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.server.process.poll() is None:
            first, complete, _ = self.server.log.read_text(encoding="utf-8").partition("\n")
            if complete:
                found: dict[str, str] = json.loads(first)
                return found
            time.sleep(0.0005)
        raise RuntimeError(f"`ocad-server` did not start: {self.server.log.read_text(encoding='utf-8')[-2000:]}")

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError), contextlib.closing(self.connection()) as asked:
                asked.request("GET", "/v2/health/ready")
                if asked.getresponse().status == 200:
                    return
            time.sleep(0.0005)
        raise RuntimeError("`ocad-server` was not ready in time")

    def connection(self) -> http.client.HTTPConnection:
        """A new HTTP connection."""
        host, port = self.http.split(":")
        return http.client.HTTPConnection(host, int(port), timeout=10)

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
