"""`ocad alerts` beside a detection: what it shows, what it changes, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocad.__main__ import run
from ocad.detection.alerts import AlertStore, alerts_folder, load_settings, open_alerts
from ocad.errors import ConfigError

from .conftest import ManagerMaker, at, incident
from .receivers import Receiver, receiving

ALERT = {
    *(
        "id",
        "endpoint",
        "metrics",
        "start",
        "end",
        "kind",
        "score",
        "detectors",
        "deviations",
        "peak",
        "peak_at",
        "lost",
        "expected",
        "rows",
        "status",
        "severity",
    ),
    *("fingerprint", "group", "family", "incidents", "acknowledged_by", "note", "labels", "text"),
}
NOTICE = ALERT | {"key", "at", "repeat", "group_key", "alerts", "replaces", "seq", "partial", "deliveries"}
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ocad(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `ocad alerts …` on the test's store; gives exit code, stdout and stderr."""
    monkeypatch.setenv("OCAD_ALERTS", str(folder))

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ocad", "alerts", *arguments])
        capsys.readouterr()
        code = run()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def answer(ocad: Call, *arguments: str) -> Any:
    code, out, err = ocad(*arguments, "--json")
    assert (code, err) == (0, ""), out
    return json.loads(out)


def test_from_list_to_history(ocad: Call, make_manager: ManagerMaker) -> None:
    manager = make_manager(repeat_s=100)
    manager.observe(incident("cell-1", 0))
    manager.observe(incident("cell-2", 3))
    manager.tick(at(40))
    one, two = answer(ocad, "list")
    assert set(one) == ALERT
    assert (one["endpoint"], one["status"], two["endpoint"]) == ("cell-1", "firing", "cell-2")

    acknowledged = answer(ocad, "ack", one["id"], "--by", "ada", "--note", "ticket 7")
    assert [(a["id"], a["status"], a["acknowledged_by"], a["note"]) for a in acknowledged] == [
        (one["id"], "acknowledged", "ada", "ticket 7")
    ]
    resolved = answer(ocad, "resolve", two["fingerprint"], "--by", "ada")
    assert [(a["endpoint"], a["status"], a["note"]) for a in resolved] == [("cell-2", "resolved", "resolved by ada")]
    assert [alert["endpoint"] for alert in answer(ocad, "list")] == ["cell-1"]
    assert [alert["endpoint"] for alert in answer(ocad, "list", "--all")] == ["cell-1", "cell-2"]

    manager.tick(at(250))
    manager.observe(incident("cell-1", 0, 251))
    manager.tick(at(1000))
    told = answer(ocad, "history")
    assert [(notice["status"], len(notice["alerts"])) for notice in told] == [
        *(("firing", 2), ("acknowledged", 1), ("resolved", 2)),
    ]
    assert all(set(notice) == NOTICE for notice in told)
    assert answer(ocad, "history", "--limit", "1") == told[-1:]
    assert answer(ocad, "history", one["id"]) == told
    assert answer(ocad, "history", "0" * 16) == []
    assert answer(ocad, "list") == []


def test_a_person_sees_tables(ocad: Call, make_manager: ManagerMaker) -> None:
    manager = make_manager()
    code, out, _ = ocad("list")
    assert (code, out) == (0, "no open alerts\n")
    assert ocad("history")[1] == "no notifications\n"
    manager.observe(incident("cell-1", 0))
    manager.tick(at(40))
    heading, row = ocad("list")[1].splitlines()
    assert heading.split() == [
        "id",
        "endpoint",
        "metrics",
        "kind",
        "severity",
        "status",
        "start",
        "end",
        "score",
        "by",
        "note",
    ]
    assert row.split()[1:7] == ["cell-1", "udp_echo", "shift", "info", "firing", "2026-01-01T00:00:00.000000Z"]
    heading, row = ocad("history")[1].splitlines()
    assert row.split()[:4] == ["2026-01-01T00:00:30.000000Z", "firing", "info", "cell-1"]


def test_a_running_detection_delivers_what_a_person_says(ocad: Call, folder: Path, tmp_path: Path) -> None:
    with receiving(Receiver()) as receiver:
        config = tmp_path / "alerts.yaml"
        config.write_text(f"group_wait_s: 0\nsinks: {{console: null, webhook: {{url: '{receiver.url}'}}}}\n")
        heard: list[dict[str, Any]] = []
        with open_alerts(folder, config, raised=heard.append) as manager:
            manager.observe(incident("cell-1", 0))
            receiver.wait_for(1)
            answer(ocad, "ack", answer(ocad, "list")[0]["id"], "--by", "ada")
            receiver.wait_for(2)
    assert [(body["status"], body["acknowledged_by"]) for _, _, body in receiver.requests] == [
        ("firing", None),
        ("acknowledged", "ada"),
    ]
    assert [alert["endpoint"] for alert in heard] == ["cell-1"]


@pytest.mark.parametrize("command", [("list",), ("history",), ("ack", "x"), ("resolve", "x")])
def test_no_store(ocad: Call, folder: Path, command: tuple[str, ...]) -> None:
    code, out, _ = ocad(*command, "--json")
    hint = "give `--alerts` or `OCAD_ALERTS`, the folder of `alerts.db`"
    assert (code, json.loads(out)["error"]) == (
        1,
        {"code": "alert-store", "message": f"no alerts in `{folder}`", "hint": hint},
    )
    assert not folder.exists()


@pytest.mark.parametrize("command", ["ack", "resolve"])
def test_no_such_alert_changes_nothing(ocad: Call, make_manager: ManagerMaker, command: str) -> None:
    manager = make_manager()
    manager.observe(incident("cell-1", 0))
    known = answer(ocad, "list")[0]
    code, _, err = ocad(command, known["id"], "cell-1")
    assert (code, err) == (1, "error: no open alert or group `cell-1`: `ocad alerts list` shows them\n")
    assert answer(ocad, "list") == [known]


def test_a_damaged_store_is_one_line(ocad: Call, folder: Path) -> None:
    folder.mkdir()
    (folder / "alerts.db").write_bytes(b"garbage" * 2000)
    code, _, err = ocad("list")
    path = folder / "alerts.db"
    assert (code, err) == (
        1,
        f"error: cannot use `{path}` (file is not a database): it is no store of alerts; move it away\n",
    )


def test_where_alerts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCAD_ALERTS", raising=False)
    assert alerts_folder() == Path("alerts")
    monkeypatch.setenv("OCAD_ALERTS", "elsewhere")
    assert (alerts_folder(), alerts_folder("here")) == (Path("elsewhere"), Path("here"))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("group_wait: 3", "unknown configuration key `group_wait` in `{file}`", "did you mean `group_wait_s`?"),
        ("sinks: {webhok: {}}", "unknown configuration key `sinks.webhok` in `{file}`", "did you mean `webhook`?"),
        (
            "sinks: {webhook: {url: 'ftp://x'}}",
            "bad value for `sinks.webhook.url` in `{file}`: write it as `http://HOST:PORT/PATH` or `https://…`",
            "correct the value",
        ),
        *(
            (
                f"sinks: {{webhook: {written}}}",
                f"bad value for `sinks.webhook.{key}` in `{{file}}`: {wrong}",
                f"correct the {what}",
            )
            for written, key, wrong, what in (
                ("{url: 'http://h:0/'}", "url", "write it as `http://HOST:PORT/PATH` or `https://…`", "value"),
                ("{url: 'http://h:99999/'}", "url", "write it as `http://HOST:PORT/PATH` or `https://…`", "value"),
                ("{url: 'http://h:port/'}", "url", "write it as `http://HOST:PORT/PATH` or `https://…`", "value"),
                ("{url: 'http://h/a b'}", "url", "write what is not ASCII, and spaces, as `%20` and the like", "value"),
                ("{url: 'http://h/ü'}", "url", "write what is not ASCII, and spaces, as `%20` and the like", "value"),
                ("{url: 'http://h/', headers: {X Y: a}}", "headers.X Y", "it is no name of a header", "header"),
                ("{url: 'http://h/', headers: {'': a}}", "headers.", "it is no name of a header", "header"),
                (
                    "{url: 'http://h/', headers: {X: 東}}",
                    "headers.X",
                    "it has characters that no header can hold",
                    "header",
                ),
                (
                    "{url: 'http://h/', headers: {content-length: 3}}",
                    "headers.content-length",
                    "it is decided by what is sent",
                    "header",
                ),
            )
        ),
        (
            "hold_down_s: -1",
            "bad value for `hold_down_s` in `{file}`: input should be greater than or equal to 0",
            "correct the value",
        ),
        (
            "severity: {warning: [{sigmas: .nan}]}",
            "bad value for `severity.warning.0.sigmas` in `{file}`: input should be a finite number",
            "correct the value",
        ),
        (
            "severity: {warning: {score: 6, sigmas: .nan}}",
            "bad value for `severity.warning.sigmas` in `{file}`: input should be a finite number",
            "correct the value",
        ),
        (
            "severity: {critical: {sigma: 3}}",
            "unknown configuration key `severity.critical.sigma` in `{file}`",
            "did you mean `sigmas`?",
        ),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path: Path, text: str, message: str, hint: str) -> None:
    file = tmp_path / "alerts.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert (caught.value.message, caught.value.hint) == (message.format(file=file), hint)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration of alerts `.*none.yaml`: check .* `--alert-config`"):
        load_settings(tmp_path / "none.yaml")


def test_the_project_configuration_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_HOME", str(tmp_path))
    (tmp_path / "configs" / "detection").mkdir(parents=True)
    (tmp_path / "configs" / "detection" / "alerts.yaml").write_text(
        "sinks: {console: null, jsonl: {path: told.jsonl}}\n"
    )
    with open_alerts(tmp_path / "alerts") as manager:
        manager.observe(incident("cell-1", 0))
        manager.tick(at(40))
    assert json.loads((tmp_path / "alerts" / "told.jsonl").read_text(encoding="utf-8"))["status"] == "firing"
    AlertStore(tmp_path / "alerts", create=False).close()
