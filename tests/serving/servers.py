"""The real server as a process, and a plain HTTP client that hides nothing."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ocad.serving import find_onnxruntime, find_server

START_S = 300.0
STEP_S = 0.005


class Answer(NamedTuple):
    """An HTTP answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of a failure."""
        message: str = self.json()["error"]
        return message


class Server:
    """A running `ocad-server`; use it in a `with`. A `prefix` command may set the stage and `exec` it.

    Its log and its cache are beside the registry, or in `folder` where that is a URL.
    """

    def __init__(
        self,
        registry: Path | str,
        *options: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        folder = folder or Path(registry).parent
        self.log = folder / f"server-{time.monotonic_ns()}.log"
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                [*prefix, *command(registry, *options)],
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment(folder, env),
            )
        try:
            line = self._first_line()
            addresses = json.loads(line)
        except ValueError:
            self.stop()
            raise AssertionError(f"the server printed {line!r} and logged: {self.log_text()}") from None
        self.http: str = addresses["http"]
        self.grpc: str = addresses["grpc"]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return self.process.stdout.readline() if selector.select(START_S) else b""

    def connection(self, timeout: float = 300.0) -> http.client.HTTPConnection:
        """A new connection, to be closed by the caller."""
        host, port = self.http.split(":")
        return http.client.HTTPConnection(host, int(port), timeout=timeout)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = self.connection()
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """`GET path`."""
        return self.request("GET", path, headers=headers)

    def infer(self, model: str, inputs: Sequence[Mapping[str, Any]], version: str = "", **more: Any) -> Answer:
        """`POST …/infer` with JSON; `more` joins the body."""
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        return self.request("POST", path, json.dumps({"inputs": list(inputs), **more}))

    def wait_ready(self) -> None:
        """Until `/v2/health/ready` answers 200."""
        wait_for(lambda: self.get("/v2/health/ready").status == 200, f"readiness; the log is {self.log_text()[-2000:]}")

    def log_text(self) -> str:
        """What the server has logged so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def metrics(self) -> dict[str, float]:
        """The metrics by series, labels included, as Prometheus' text format writes them."""
        lines = self.get("/metrics").body.decode().splitlines()
        return {
            series: float(value) for series, _, value in (line.rpartition(" ") for line in lines if line[:1] not in "#")
        }

    def open_files(self) -> int:
        """How many descriptors the server holds."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 (a count is all that is wanted)

    def is_inferring(self) -> bool:
        """Whether one of its inference threads is at work; the one that answers probes says nothing about a run."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            inference = (task / "comm").read_text(encoding="ascii").startswith("model-")
            if inference and (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "R":
                return True
        return False

    def resident_mb(self) -> float:
        """The server's resident memory in MB (10^6 bytes)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))

    def peak_mb(self) -> float:
        """The most resident memory that the server ever had in MB (10^6 bytes)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))

    def stop(self) -> int:
        """Asks it to end and waits; kills it when it does not within 20 s. Answers with its exit status."""
        self.process.terminate()
        try:
            self.process.wait(600)
        except subprocess.TimeoutExpired:
            self.process.kill()
        finally:
            if self.process.stdout:
                self.process.stdout.close()
        return self.process.wait()


def command(registry: Path | str, *options: str) -> list[str]:
    """The command line of a server on free ports."""
    given = ["--registry", str(registry), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    return [str(find_server()), *given, *options]


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a server: its own caches in `folder`, this environment's runtime library."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("OCAD_")}
    found["OCAD_SERVER_CACHE"] = str(folder / "server-cache")
    found["OCAD_CACHE"] = str(folder / "cache")
    found["ORT_DYLIB_PATH"] = str(find_onnxruntime())
    return found | dict(more or {})


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """Asks until `condition` holds; fails with `what` when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(STEP_S)


def tensor(name: str, datatype: str, values: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A two-dimensional tensor of a JSON request."""
    flat = [value for row in values for value in row]
    return {"name": name, "datatype": datatype, "shape": [len(values), len(values[0])], "data": flat}
