"""Detects over the rows kept for measuring, alerts a webhook of its own on 127.0.0.1, and writes reports/detection.html."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ocad.recipes import TEST_ROWS, write_multivariate

REPORT = Path("reports") / "detection.html"
SHOWN = 5


class Receiver(BaseHTTPRequestHandler):
    """Keeps what is posted to it, each idempotency key once."""

    received: dict[str, dict[str, Any]] = {}  # noqa: RUF012

    def do_POST(self) -> None:
        """One notification."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received[self.headers["Idempotency-Key"]] = json.loads(body)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing."""


def main() -> int:
    """Runs `ocad detect` with a webhook and shows what arrived there."""
    write_multivariate()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="ocad-alerts-") as folder:
        settings = Path(folder, "alerts.yaml")
        address = f"http://127.0.0.1:{server.server_port}/"
        settings.write_text(f"sinks: {{console: null, jsonl: null, webhook: {{url: '{address}'}}}}\n", encoding="utf-8")
        command = ["detect", "composite-oran@production", "--data", str(TEST_ROWS), "--report", str(REPORT)]
        asked = [sys.executable, "-m", "ocad", *command, "--alerts", folder, "--alert-config", str(settings)]
        done = subprocess.run(asked, check=False)
    server.shutdown()
    told = list(Receiver.received.values())
    print(f"\nthe webhook received {len(told)} notifications, among them:")
    for notification in told[:SHOWN]:
        print(f"  {notification['status']:>10}  {notification['text']}")
    return done.returncode or (0 if told else 1)


if __name__ == "__main__":
    raise SystemExit(main())
