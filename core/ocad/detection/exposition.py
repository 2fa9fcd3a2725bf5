"""What a followed stream is doing, as Prometheus reads it: `/metrics` on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ocad.detection.following import Follower
from ocad.errors import OcadError

ADDRESS = "127.0.0.1"
MOST_AGES = 100
"""Endpoints whose last row's age is shown: those not heard for longest."""
_TIMEOUT_S = 10
_MOST_READERS = 8

Samples = Iterable[tuple[Mapping[str, str], float]]


def exposition(follower: Follower, queued: Mapping[str, int]) -> str:
    """The text format 0.0.4; `queued` is how many notifications wait by sink."""
    now = follower.clock.now_us or 0
    refused = [({"reason": reason}, float(count)) for reason, count in sorted(follower.refused.items())]
    heard = [({"endpoint": name}, (now - at) / 1e6) for name, at in follower.presence.last_heard(MOST_AGES)]
    families: list[tuple[str, str, str, Samples]] = [
        ("ocad_rows_total", "counter", "Rows that were scored.", [({}, follower.rows)]),
        ("ocad_rows_refused_total", "counter", "Rows that could not be used, by reason.", refused),
        (
            *("ocad_incidents_total", "counter", "Incidents that opened, by kind."),
            [({"kind": kind}, float(count)) for kind, count in sorted(follower.incidents.items())],
        ),
        ("ocad_incidents_open", "gauge", "Incidents that are not over.", [({}, follower.open_incidents)]),
        (
            *("ocad_alerts_queued", "gauge", "Notifications that wait for a sink."),
            [({"sink": sink}, float(count)) for sink, count in sorted(queued.items())],
        ),
        ("ocad_stream_lag_seconds", "gauge", "The machine's clock less the stream's.", [({}, follower.clock.lag_s())]),
        ("ocad_endpoints", "gauge", "Endpoints that are followed.", [({}, len(follower.presence))]),
        ("ocad_endpoints_forgotten_total", "counter", "Endpoints beyond the limit.", [({}, follower.forgotten)]),
        (
            *("ocad_last_row_age_seconds", "gauge", f"Of at most {MOST_AGES} endpoints, those not heard for longest."),
            heard,
        ),
    ]
    lines = []
    for name, kind, about, samples in families:
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            lines.append(f"{name}{{{shown}}} {value:.10g}" if shown else f"{name} {value:.10g}")
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Answers `/metrics` on 127.0.0.1 with the newest `page`; port 0 takes a free one. Raises `OcadError` when it is taken."""

    def __init__(self, port: int) -> None:
        self.page = ""
        answerer, readers = self, threading.BoundedSemaphore(_MOST_READERS)

        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT_S

            def do_GET(self) -> None:
                known = self.path.partition("?")[0] == "/metrics"
                body = (answerer.page if known else "ask for /metrics\n").encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Whoever scrapes is not told of."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request: object, client_address: object) -> None:
                if readers.acquire(blocking=False):
                    super().process_request(request, client_address)  # type: ignore[arg-type]
                else:
                    self.shutdown_request(request)  # type: ignore[arg-type]

            def process_request_thread(self, request: object, client_address: object) -> None:
                try:
                    super().process_request_thread(request, client_address)  # type: ignore[arg-type]
                finally:
                    readers.release()

            def handle_error(self, request: object, client_address: object) -> None:
                """A reader that has gone is nobody's fault."""

        try:
            self._server = Server((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            reason = str(getattr(error, "strerror", None) or error).lower()
            message = f"cannot serve metrics at `{ADDRESS}:{port}` ({reason})"
            raise OcadError(message, "choose another `--metrics-port`") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
