"""The way from the outbox to the sinks, with real receivers: order, failures, refusals, one sender at a time."""

from __future__ import annotations

import gc
import io
import json
import random
import sys
import threading
import tracemalloc
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ocad.detection.alerts import AlertManager, AlertStore, load_settings
from ocad.detection.alerts.courier import Backoff, Lease
from ocad.detection.alerts.http_sinks import post
from ocad.detection.alerts.notices import Notice
from ocad.detection.alerts.outbox import Outbox
from ocad.detection.alerts.settings import DeliverySettings
from ocad.detection.alerts.sinks import DeliveryError, JsonlSink, make_sinks
from ocad.errors import ConfigError

from .conftest import at, incident
from .receivers import Receiver, dripping, receiving, wait_until
from .sender import detect, settings


def manager_of(folder: Path, url: str, warnings: list[str], **changes: Any) -> AlertManager:
    config = settings(url, **changes)
    return AlertManager(
        config, AlertStore(folder), make_sinks(config, folder), warn=warnings.append, chance=random.Random(1)
    )


FAST: dict[str, Any] = {
    "group_wait_s": 0,
    "hold_down_s": 1,
    "delivery": {"first_s": 0.01, "longest_s": 0.2, "drain_s": 60},
}


def deliveries(folder: Path, sink: str) -> list[dict[str, Any]]:
    store = AlertStore(folder)
    told = Outbox(store).history(10_000)
    store.close()
    return [notice["deliveries"][sink] for notice in told]


def written(file: Path, **values: Any) -> Path:
    """A configuration as a person writes it."""
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


def test_a_webhook_gets_every_notification_in_order(folder: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    headers = {"Authorization": "Bearer ${OCAD_TEST_TOKEN}"}
    with receiving(Receiver()) as receiver, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("OCAD_TEST_TOKEN", "secret")
        sinks = {"console": None, "webhook": {"url": receiver.url, "headers": headers}}
        config = load_settings(written(tmp_path / "alerts.yaml", **FAST, sinks=sinks))
        with AlertManager(
            config, AlertStore(folder), make_sinks(config, folder), warn=warnings.append, chance=random.Random(1)
        ) as manager:
            detect(manager, 8)
    assert [state["state"] for state in deliveries(folder, "webhook")] == ["delivered"] * 16
    assert [body["status"] for _, _, body in receiver.requests].count("resolved") == 8
    path, sent, body = receiver.requests[0]
    assert (path, sent["Idempotency-Key"], sent["Content-Type"]) == ("/hook", body["key"], "application/json")
    assert sent["Authorization"] == "Bearer secret"
    assert (body["endpoint"], body["metrics"], body["kind"], body["status"]) == (
        "link-a",
        ["udp_echo"],
        "shift",
        "firing",
    )
    assert body["text"] == (
        "info firing: link-a udp_echo 812 µs (normal 400 µs, +5.0 sigmas) since 2026-01-01T00:00:00Z, shift, score 4.0"
        f" (rule 4.0) [{body['id']}]"
    )
    assert warnings == []


def test_a_receiver_that_is_down_gets_all_when_it_is_back(folder: Path) -> None:
    warnings: list[str] = []
    with receiving(Receiver()) as receiver:
        pass  # its port is free again
    manager = manager_of(folder, receiver.url, warnings)
    detect(manager, 10)
    wait_until(lambda: bool(warnings))
    with receiving(receiver):
        receiver.wait_for(20)
        manager.close()
    assert receiver.keys == list(dict.fromkeys(receiver.keys))
    assert len(receiver.keys) == 20
    server = f"http://127.0.0.1:{receiver.port}"
    reason = f"`{server}` is not reached (connection refused)"
    assert warnings[0] == f"cannot deliver alerts to `webhook`: {reason}; they are kept and tried again"
    assert warnings[1].startswith("alerts reach `webhook` again after ")
    assert len(warnings) == 2, "one line when it fails and one when it works again"


def test_what_waits_at_the_end_is_sent_at_the_next_start(folder: Path) -> None:
    with receiving(Receiver()) as receiver:
        pass
    short = {"first_s": 0.01, "longest_s": 0.05, "drain_s": 1}
    with manager_of(folder, receiver.url, [], delivery=short) as manager:
        detect(manager, 4)
    assert {state["state"] for state in deliveries(folder, "webhook")} == {"waiting"}
    assert {state["state"] for state in deliveries(folder, "jsonl")} == {"delivered"}, "a dead sink holds up no other"
    with receiving(receiver), manager_of(folder, receiver.url, []):
        receiver.wait_for(8)
    assert {state["state"] for state in deliveries(folder, "webhook")} == {"delivered"}
    assert len(set(receiver.keys)) == len(receiver.keys) == 8


@pytest.mark.parametrize("status", [500, 503, 429, 408, 400, 401, 404, 302])
def test_one_body_that_is_not_taken_keeps_no_other_back(folder: Path, status: int) -> None:
    """Whatever the receiver says of `link-b`, the others arrive; it is tried again with the same key, and in its order."""
    warnings: list[str] = []
    willing = threading.Event()
    receiver = Receiver(answer_to=lambda body: 200 if willing.is_set() or body["endpoint"] != "link-b" else status)
    with receiving(receiver), manager_of(folder, receiver.url, warnings) as manager:
        detect(manager, 6)
        receiver.wait_until(lambda: len(arrived_at(receiver, "link-a", "link-c")) == 8)
        receiver.wait_until(lambda: receiver.keys.count(arrived_at(receiver, "link-b")[0]) >= 3)
        early = {body["status"] for _, _, body in receiver.requests if body["endpoint"] == "link-b"}
        assert early == {"firing"}, "in its order"
        willing.set()
    assert {state["state"] for state in deliveries(folder, "webhook")} == {"delivered"}
    told = [body["status"] for _, _, body in receiver.requests if body["endpoint"] == "link-b"]
    assert told.index("resolved") > told.index("firing")
    server = f"`http://127.0.0.1:{receiver.port}`"
    assert warnings[0] == (
        f"cannot deliver alerts to `webhook`: {server} answered {status}; they are kept and tried again"
    )
    assert warnings[1].startswith("alerts reach `webhook` again after ")
    assert len(warnings) == 2


def arrived_at(receiver: Receiver, *endpoints: str) -> list[str]:
    """The keys of what came about these endpoints, each once, in the order in which they first came."""
    return list(dict.fromkeys(body["key"] for _, _, body in receiver.requests if body["endpoint"] in endpoints))


def test_what_is_not_taken_for_too_long_is_set_aside_listed_and_tried_at_the_next_start(folder: Path) -> None:
    warnings: list[str] = []
    willing = threading.Event()
    receiver = Receiver(answer_to=lambda body: 200 if willing.is_set() or body["endpoint"] != "link-a" else 404)
    with receiving(receiver):
        short = {"first_s": 0.01, "longest_s": 0.02, "give_up_s": 0.05, "drain_s": 60}
        with manager_of(folder, receiver.url, warnings, delivery=short) as manager:
            detect(manager, 2)
        store = AlertStore(folder)
        left = [one for one in Outbox(store).undelivered() if one["sink"] == "webhook"]
        store.close()
        assert [(one["endpoint"], one["status"], one["state"]) for one in left] == [
            ("link-a", "firing", "refused"),
            ("link-a", "resolved", "refused"),
        ]
        assert left[0]["cause"] == f"`http://127.0.0.1:{receiver.port}` answered 404"
        assert left[0]["attempts"] >= 2
        assert any("it is set aside until the next start" in line for line in warnings)
        willing.set()
        with manager_of(folder, receiver.url, []):
            receiver.wait_until(lambda: len(arrived_at(receiver, "link-a")) == 2)
    assert [state["state"] for state in deliveries(folder, "webhook")] == ["delivered"] * 4


@pytest.mark.parametrize("wish", ["3600", "Wed, 21 Oct 2065 07:28:00 GMT"])
def test_retry_after_is_heeded(folder: Path, wish: str) -> None:
    """A receiver that wants to be left alone for an hour, or until a day, is not asked again within the test."""
    receiver = Receiver(answer=lambda number: 429, headers={"Retry-After": wish})
    delivery = {"first_s": 0.01, "drain_s": 0.5}
    with receiving(receiver), manager_of(folder, receiver.url, [], delivery=delivery) as manager:
        detect(manager, 3)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("part", ["status", "headers", "body"])
def test_a_receiver_that_drips_is_left_after_the_timeout(folder: Path, part: str) -> None:
    """Each byte comes in time, the answer never."""
    warnings: list[str] = []
    with dripping(part) as port:
        sinks = {"console": None, "webhook": {"url": f"http://127.0.0.1:{port}/", "timeout_s": 0.3}}
        delivery = {"first_s": 0.01, "longest_s": 0.05, "drain_s": 0}
        manager = manager_of(folder, "", warnings, sinks=sinks, delivery=delivery)
        detect(manager, 1)
        wait_until(lambda: deliveries(folder, "webhook")[0]["attempts"] >= 2)
        manager.close()
    assert "is not reached (timed out)" in warnings[0]


def test_a_receiver_that_does_not_answer_is_left_after_the_timeout(folder: Path) -> None:
    warnings: list[str] = []
    held = threading.Event()

    def answer(number: int) -> int:
        if number == 1:
            held.wait(600)
        return 200

    with receiving(Receiver(answer=answer)) as receiver:
        sinks = {"console": None, "webhook": {"url": receiver.url, "timeout_s": 0.2}}
        with manager_of(folder, receiver.url, warnings, sinks=sinks) as manager:
            detect(manager, 1)
            receiver.wait_for(3)
            held.set()
    assert receiver.keys[0] == receiver.keys[1]
    assert "is not reached (timed out)" in warnings[0]


def test_a_backoff_doubles_to_its_bound_with_jitter() -> None:
    backoff = Backoff(DeliverySettings(first_s=1, longest_s=60), random.Random(3))
    waits = [backoff.next_s() for _ in range(2000)]
    bounds = [min(60.0, 2.0 ** min(step, 9)) for step in range(2000)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert len({round(wait, 6) for wait in waits[10:]}) > 1900


def test_one_process_at_a_time_delivers_to_a_sink(folder: Path) -> None:
    folder.mkdir()
    first, second = Lease(folder / "webhook.lock"), Lease(folder / "webhook.lock")
    assert (first.take(), first.take(), second.take()) == (True, True, False)
    first.give_back()
    assert second.take()
    second.give_back()


def test_two_managers_of_one_store_deliver_each_notification_once(folder: Path) -> None:
    with receiving(Receiver()) as receiver:
        one, two = (manager_of(folder, receiver.url, []) for _ in range(2))
        for step in range(10):
            (one if step % 2 else two).observe(incident(f"link-{step}", step, step + 1))
        one.tick(at(100))
        two.tick(at(100))
        one.close()
        two.close()
    assert len(receiver.keys) == len(set(receiver.keys)) == 20
    lines = (folder / "alerts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["key"] for line in lines] == receiver.keys


def notice(number: int) -> Notice:
    return Notice(number, f"key-{number}", {"key": f"key-{number}", "text": "x" * 100_000 * (number % 2)})


def test_a_line_that_was_written_before_a_kill_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    first = JsonlSink(file)
    first.deliver(notice(1))
    first.deliver(notice(2))
    JsonlSink(file).deliver(notice(2))
    JsonlSink(file).deliver(notice(3))
    JsonlSink(file).deliver(notice(3))
    assert [json.loads(line)["key"] for line in file.read_text(encoding="utf-8").splitlines()] == [
        "key-1",
        "key-2",
        "key-3",
    ]


@pytest.mark.parametrize("cut", [1, 20, 70_000])
def test_a_line_that_a_kill_tore_is_written_whole(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "alerts.jsonl"
    JsonlSink(file).deliver(notice(2))
    JsonlSink(file).deliver(notice(3))
    file.write_bytes(file.read_bytes()[:-cut])
    JsonlSink(file).deliver(notice(3))
    assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == [
        notice(2).body,
        notice(3).body,
    ]


def test_a_file_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    file.write_text("a note\n[1]\n", encoding="utf-8")
    JsonlSink(file).deliver(notice(2))
    assert file.read_text(encoding="utf-8").splitlines()[:2] == ["a note", "[1]"]


def test_the_console_has_one_line_for_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with manager_of(folder, "", [], sinks={}) as manager:
        detect(manager, 2)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("2026-01-01T00:00:00.000000Z info firing: link-a udp_echo 812 µs")


class Flaky:
    """A sink of a foreign make that raises what sinks should not."""

    name = "flaky"
    stateful = False
    overtaking = False
    resend_s: float | None = None

    def __init__(self) -> None:
        self.got: list[str] = []
        self.calls = 0

    def deliver(self, notice: Notice) -> None:
        self.calls += 1
        if self.calls % 3:
            raise [ZeroDivisionError("oops"), DeliveryError("`it` is away")][self.calls % 3 - 1]
        self.got.append(notice.key)

    def refresh(self, alerts: Sequence[Mapping[str, Any]]) -> None: ...


def test_a_sink_with_a_fault_of_its_own_is_tried_again(folder: Path) -> None:
    sink, warnings = Flaky(), list[str]()
    with AlertManager(settings(""), AlertStore(folder), [sink], warn=warnings.append) as manager:
        detect(manager, 3)
    assert len(sink.got) == len(set(sink.got)) == 6
    assert "cannot deliver alerts to `flaky`: ZeroDivisionError: oops" in warnings[0]


def test_memory_does_not_grow_with_the_queue(folder: Path) -> None:
    """While a receiver is away the queue is in the file."""
    with receiving(Receiver()) as receiver:
        pass
    manager = manager_of(folder, receiver.url, [], delivery={"first_s": 30, "drain_s": 0})
    detect(manager, 50)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    detect(manager, 150)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    manager.close()
    assert [state["state"] for state in deliveries(folder, "webhook")] == ["waiting"] * 300
    assert grown < 100_000, "the 200 notifications that came to wait have more than 200,000 bytes"


def test_no_secret_of_the_address_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_TEST_TOKEN", "secret")
    warnings: list[str] = []
    with receiving(Receiver(answer=lambda number: 404)) as receiver:
        url = receiver.url.replace("hook", "${OCAD_TEST_TOKEN}")
        delivery = {"first_s": 0.01, "longest_s": 0.02, "drain_s": 1, "give_up_s": 0.05}
        config = load_settings(written(tmp_path / "alerts.yaml", sinks={"webhook": {"url": url}}, delivery=delivery))
        with AlertManager(config, AlertStore(folder), make_sinks(config, folder), warn=warnings.append) as manager:
            detect(manager, 1)
            manager.flush()
    assert receiver.requests[0][0] == "/secret"
    assert "secret" not in " ".join([*warnings, *(state["cause"] for state in deliveries(folder, "webhook"))])


def test_a_whole_address_may_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its user and password, which go as RFC 7617 has it."""
    with receiving(Receiver()) as receiver:
        monkeypatch.setenv("OCAD_TEST_URL", receiver.url.replace("//", "//ocad:s%3Acret@"))
        file = folder.parent / "named.yaml"
        file.write_text('sinks: {webhook: {url: "${OCAD_TEST_URL}"}}')
        webhook = load_settings(file).sinks.webhook
        assert webhook is not None
        post(webhook, "", {"told": 1})
    assert [(path, headers["Authorization"]) for path, headers, _ in receiver.requests] == [
        ("/hook", f"Basic {b64encode(b'ocad:s:cret').decode()}")
    ]


UNSET = "`sinks.{place}` in `{file}` asks for `${{OCAD_SURELY_NOT_SET}}`, which is not set: export OCAD_SURELY_NOT_SET"


@pytest.mark.parametrize(
    ("sink", "values", "place"),
    [
        ("webhook", {"url": "http://h/", "headers": {"X": "${OCAD_SURELY_NOT_SET}"}}, "webhook.headers.X"),
        ("webhook", {"url": "http://h/${OCAD_SURELY_NOT_SET}"}, "webhook.url"),
        ("alertmanager", {"url": "http://${OCAD_SURELY_NOT_SET}/"}, "alertmanager.url"),
    ],
)
def test_a_variable_that_is_not_set_is_refused_at_start(
    tmp_path: Path, sink: str, values: dict[str, Any], place: str
) -> None:
    file = written(tmp_path / "alerts.yaml", sinks={sink: values})
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert str(caught.value) == UNSET.format(place=place, file=file)


@pytest.mark.parametrize("text", ["$HOME", "$", "a $5 b", "%HOME%"])
def test_only_the_documented_form_is_filled_in(tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "alerts.yaml", sinks={"webhook": {"url": "http://h/", "headers": {"X": text}}})
    webhook = load_settings(file).sinks.webhook
    assert webhook is not None
    assert webhook.headers == {"X": text}


def test_a_value_with_a_line_break_is_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_TEST_TOKEN", "a\r\nHost: b")
    file = written(
        tmp_path / "alerts.yaml", sinks={"webhook": {"url": "http://h/", "headers": {"X": "${OCAD_TEST_TOKEN}"}}}
    )
    with pytest.raises(ConfigError, match="it has a line break"):
        load_settings(file)
