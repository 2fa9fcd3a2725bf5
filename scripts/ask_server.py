"""Starts `ocad serve` on free ports, asks the promoted forecaster for the step after the newest window, shows the answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from ocad.catalogue import find_data
from ocad.timeseries.frame import read_frame

MODEL, METRIC, WINDOW = "tcn-udp_echo", "udp_echo", 10
READY_SECONDS = 30.0


def newest_window() -> np.ndarray[Any, np.dtype[np.float32]]:
    """The last ten measured values of the recorded trace, `(1, 10, 1)` in µs."""
    values = read_frame(find_data(METRIC), [METRIC]).data[METRIC].dropna()
    return values.to_numpy(np.float32)[-WINDOW:].reshape(1, WINDOW, 1)


def wait_until_ready(address: str) -> None:
    """Returns when the server answers 200; raises `TimeoutError` after half a minute."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5):
                return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    raise TimeoutError(f"the server at {address} is not ready after {READY_SECONDS:g} s")


def ask(address: str, window: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    """The server's answer to one inference request of the Open Inference Protocol."""
    tensor = {"name": "input", "datatype": "FP32", "shape": list(window.shape), "data": window.ravel().tolist()}
    url = f"http://{address}/v2/models/{MODEL}/versions/production/infer"
    request = urllib.request.Request(url, json.dumps({"inputs": [tensor]}).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def main() -> None:
    """Serves, asks and stops the server again."""
    command = [
        sys.executable,
        "-m",
        "ocad",
        "serve",
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--log",
        "error",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["http"]
            wait_until_ready(address)
            window = newest_window()
            answer = ask(address, window)
        finally:
            server.terminate()
    print(f"asked    http://{address}/v2/models/{MODEL}/versions/production/infer")
    print(f"window   {', '.join(f'{value:.0f}' for value in window.ravel())} µs")
    print(f"forecast {answer['outputs'][0]['data'][0]:.0f} µs")
    print(
        f"by       {MODEL}@{answer['parameters']['version']}  metadata sha256 {answer['parameters']['metadata_sha256']}"
    )


if __name__ == "__main__":
    main()
