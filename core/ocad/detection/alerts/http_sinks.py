"""Where notifications go over HTTP: a webhook, and a Prometheus Alertmanager by its API v2."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ocad.detection.alerts.notices import Notice, dump
from ocad.detection.alerts.settings import AlertmanagerSettings, WebhookSettings
from ocad.detection.alerts.sinks import DeliveryError
from ocad.detection.deadline import Deadline, watched_by
from ocad.detection.incidents import iso_time
from ocad.errors import printable

_ALERTS = "/api/v2/alerts"
_BUSY = {429, 503}


class _NoRedirect(HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body: it counts as refused."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class WebhookSink:
    """A JSON POST for each notification with its key as `Idempotency-Key`, the same at every attempt."""

    name = "webhook"
    stateful = False
    overtaking = True
    resend_s: float | None = None

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    def deliver(self, notice: Notice) -> None:
        """Returns after a 2xx answer."""
        post(self._settings, "", notice.body, notice.key)

    def refresh(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """What was answered needs no repetition."""


class AlertmanagerSink:
    """The alerts of each notification as Alertmanager knows them: by their labels, firing until `endsAt`.

    It takes the same alert any number of times, so doubled deliveries change nothing. An alert whose labels changed, as
    `severity` does when it escalates, is another one there: the old one is ended in the same POST.
    """

    name = "alertmanager"
    stateful = True
    overtaking = True

    def __init__(self, settings: AlertmanagerSettings) -> None:
        self._settings = settings
        self.resend_s: float | None = settings.resend_s

    def deliver(self, notice: Notice) -> None:
        """Posts what the notification says of each alert."""
        post(self._settings, _ALERTS, self._form(notice.body["alerts"], notice.body["at"]), notice.key)

    def refresh(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Posts the alerts that fire again, so that they outlive the `resolve_timeout`."""
        if alerts:
            post(self._settings, _ALERTS, self._form(alerts, ""))

    def _form(self, alerts: Sequence[Mapping[str, Any]], at: str) -> list[dict[str, Any]]:
        now = iso_time(int(datetime.now(UTC).timestamp() * 1_000_000))
        form = []
        for alert in alerts:
            if alert.get("replaces"):
                form.append(self._entry(alert, alert["replaces"], now) | {"endsAt": max(alert["start"], min(at, now))})
            form.append(self._entry(alert, alert["labels"], now))
        return form

    def _entry(self, alert: Mapping[str, Any], labels: Mapping[str, str], now: str) -> dict[str, Any]:
        entry = {
            "labels": {"alertname": self._settings.alertname, **labels},
            "annotations": {
                "summary": alert.get("text", ""),
                "detectors": ", ".join(f"{name} {score:.2f}" for name, score in alert["detectors"].items()),
                "alert": alert["id"],
            },
            # data may be ahead of this machine's clock, and an alert that starts or ends tomorrow means something else
            "startsAt": min(alert["start"], now),
        }
        if alert["status"] == "resolved":
            entry["endsAt"] = max(entry["startsAt"], min(alert["end"] or now, now))
        return entry


def post(settings: WebhookSettings, path: str, body: object, key: str = "") -> None:
    """A POST of `body` as JSON to `path` below the address, answered within `timeout_s` as a whole.

    Raises `DeliveryError` unless the answer is 2xx: an `answered` one for any other answer.
    """
    parts = urlsplit(settings.url)
    user, _, host = parts.netloc.rpartition("@")
    server = f"{parts.scheme}://{host}"  # all of an address that a log may show
    headers = {"Content-Type": "application/json", "User-Agent": "ocad", **_credentials(user), **settings.headers}
    headers |= {"Idempotency-Key": key} if key else {}
    url = parts._replace(netloc=host).geturl()
    url = url.rstrip("/") + path if path else url
    request = Request(url, data=dump(body).encode(errors="replace"), headers=headers, method="POST")
    with Deadline(settings.timeout_s) as deadline:
        try:
            with build_opener(_NoRedirect, *watched_by(deadline)).open(request, timeout=settings.timeout_s) as answer:
                answer.read(_READ)
        except HTTPError as error:
            said = ""
            with error, suppress(OSError, HTTPException):
                said = printable(" ".join(error.read(_READ).decode(errors="replace").split()))[:200]
            wait = _wished_wait(error)
            message = f"`{server}` answered {error.code} {said}".rstrip()
            raise DeliveryError(message, answered=True, wait_s=wait) from None
        except (OSError, HTTPException, ValueError) as error:
            cause = "timed out" if deadline.passed else _cause(error)
            raise DeliveryError(f"`{server}` is not reached ({cause.lower()})") from None
        if deadline.passed:
            raise DeliveryError(f"`{server}` is not reached (timed out)")


def _credentials(user: str) -> dict[str, str]:
    """The header of `USER:PASSWORD` before a host (RFC 7617)."""
    return {"Authorization": f"Basic {b64encode(unquote_to_bytes(user)).decode()}"} if user else {}


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return printable(str(getattr(reason, "strerror", None) or str(reason) or type(reason).__name__))[:200]


def _wished_wait(error: HTTPError) -> float:
    """The receiver's `Retry-After` (seconds, or a date) in seconds, at most ten minutes; 0 where it says none."""
    wish = error.headers.get("Retry-After", "") if error.code in _BUSY else ""
    try:
        seconds = float(wish)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(wish) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), 600.0)


_READ = 65536
"""The most bytes read of an answer."""
