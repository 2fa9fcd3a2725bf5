"""Bad input through the real command line: the exact words, the exit code, and the same as JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.needs import mount_namespace

from ocad.contexts import Export
from ocad.errors import PluginError
from ocad.evidence import usable_cores
from ocad.host import Host

from .conftest import HELLO, TIGHT, CommandLine

CASES = yaml.safe_load(Path(__file__).with_name("errors.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["run"])
def test_says_what_is_wrong(ocad: CommandLine, work: Path, case: dict[str, Any]) -> None:
    """Plainly one line on stderr and nothing on stdout, with `--json` the same on stdout; nothing is registered."""
    message = case["message"].replace("{here}", str(work))
    hint = case["hint"].replace("{plugins}", ", ".join(f"`{name}`" for name in Host().entries))
    before = ocad("registry", "list", "--json").value
    plain = ocad(*shlex.split(case["run"]))
    assert (plain.code, plain.out) == (case["exit"], "")
    assert plain.err.splitlines()[-1] == f"error: {message}: {hint}"
    answer = ocad(*shlex.split(case["run"]), "--json")
    assert answer.code == case["exit"]
    assert answer.value == {"error": {"code": case["code"], "message": message, "hint": hint}}
    assert ocad("registry", "list", "--json").value == before


def test_a_gate_that_says_no_registers_and_refuses_the_promotion(ocad: CommandLine) -> None:
    answer = ocad(*HELLO, "--set", TIGHT, "--promote", "production", "--json")
    assert (answer.code, answer.value["ref"], answer.value["passed"]) == (3, "hello-udp_echo@2.1.0", False)
    (gate,) = answer.value["gates"]
    cause = f"gate `mase`: `mase` is {gate['observed']}, not < 0.1"
    assert answer.err.splitlines()[-1] == (
        f"`hello-udp_echo@2.1.0` is registered but did not pass ({cause}): promoting it needs `--force --reason`"
    )
    refused = ocad("registry", "promote", "hello-udp_echo@2.1.0", "production", "--json")
    assert refused.code == 3
    assert refused.value["error"]["message"] == f"`hello-udp_echo@2.1.0` did not pass: {cause}"
    assert ocad("verify", "hello-udp_echo@2.1.0", "--json").value["gates"] == [gate]


def test_a_graph_that_fails_parity_registers_and_refuses_the_promotion(
    ocad: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph answers with the value of another row than the trained model."""
    model = importlib.import_module("ocad_hello.model")
    right: Callable[[Any, Path], Export] = model.export

    def wrong(trained: Any, run: Path) -> Export:
        other = right(dataclasses.replace(trained, season=trained.season + 1), run)
        return dataclasses.replace(right(trained, run / "unused"), artifacts=other.artifacts)

    monkeypatch.setattr(model, "export", wrong)
    answer = ocad(*HELLO, "--promote", "production", "--json")
    assert (answer.code, answer.value["passed"], answer.value["gates"][0]["passed"]) == (3, False, True)
    parity = answer.value["parity"]
    assert (parity["passed"], parity["tolerance"]) == (False, 1e-5)
    assert parity["max_scaled_diff"] > 0.1
    refused = ocad("registry", "promote", answer.value["ref"], "production")
    assert (refused.code, refused.out) == (3, "")
    assert f"parity {parity['max_scaled_diff']} is over 1e-05" in refused.err
    verdict = ocad("verify", answer.value["ref"], "--json")
    assert (verdict.code, verdict.value["parity"]) == (3, parity)


def test_a_flipped_byte_is_refused_before_anything_is_loaded(ocad: CommandLine, work: Path) -> None:
    graph = work / "models" / "hello-udp_echo" / "1.1.0" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.chmod(0o644)
    graph.write_bytes(content)
    for command in ("verify", "evaluate", "predict --data windows.npz"):
        answer = ocad(*command.split(), "hello-udp_echo@1.1.0", "--json")
        assert (answer.code, answer.value["error"]["code"]) == (3, "digest"), command
    assert ocad("predict", "hello-udp_echo@1.0.0", "--data", "windows.npz").code == 0
    findings = ocad("registry", "verify", "--json")
    assert findings.code == 3
    assert [finding["reference"] for finding in findings.value if finding["severity"] == "error"] == [
        "hello-udp_echo@1.1.0"
    ]


def test_a_finished_run_is_not_resumed(ocad: CommandLine, work: Path) -> None:
    run = next(path.parent for path in work.glob("runs/*/*/result.json") if "@1.0.0" in path.read_text())
    answer = ocad("train", "--resume", str(run), "--json")
    assert answer.code == 1
    assert answer.value["error"]["message"] == f"the run `{run}` is finished and registered as `hello-udp_echo@1.0.0`"


def test_debug_shows_the_traceback(ocad: CommandLine) -> None:
    with pytest.raises(PluginError) as caught:
        ocad("train", "--plugin", "raises-in-hook", "--data", "link", "--debug")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the current directory."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-m", "ocad", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("data", "warnings"),
    [
        ("zoneless.csv", ["data `zoneless.csv`: 4680 times without a zone, read as UTC"]),
        ("shuffled.parquet", ["rows out of order, sorted", "data `shuffled.parquet`: 3 rows repeat an earlier time, left out"]),
    ],
)  # fmt: skip
def test_what_can_be_put_right_is_used_and_said(work: Path, data: str, warnings: list[str]) -> None:
    done = program("train", "--plugin", "hello", "--metric", "udp_echo", "--data", data, "--name", "tidied", "--json")
    tidy = json.loads((work / "models" / "hello-udp_echo" / "1.0.0" / "metadata.json").read_text())
    assert (done.returncode, json.loads(done.stdout)["metrics"]) == (0, tidy["metrics"])
    for warning in warnings:
        assert warning in done.stderr


def test_one_of_several_metrics_fails_and_the_others_go_on(work: Path) -> None:
    done = program("train", "--plugin", "hello", "--metric", "udp_echo", "--metric", "rtt", "--data", "link", "--json")
    good, bad = json.loads(done.stdout)["results"]
    assert (done.returncode, good["ref"], good["passed"]) == (1, "hello-udp_echo@2.1.0", True)
    assert bad == {
        "metric": "rtt",
        "error": {"code": "usage", "message": "data `link` has no metric `rtt`", "hint": "known: `udp_echo`"},
    }


def test_an_interrupt_reaches_every_metric_and_names_what_is_kept(work: Path) -> None:
    """Two trainings wait in their processes when the terminal sends its Ctrl-C to all of them."""
    command = [sys.executable, "-m", "ocad", "train", "--plugin", "waits", "--metric", "a", "--metric", "b"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*command, "--data", "link", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while len(started := sorted(work.glob("runs/waits-*/*/started"))) < min(2, usable_cores()):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    answer, _ = process.communicate()
    results = json.loads(answer)["results"]
    assert (process.returncode, [result["metric"] for result in results]) == (1, ["a", "b"])
    for result, path in zip(results, started, strict=False):
        run = path.parent.relative_to(work)
        assert result["error"]["message"] == f"interrupted; `{run}` is kept"
        assert result["error"]["hint"] == f"go on with `ocad train --resume {run}`"


DISKS = {
    "size=16k": ("disk-full", "no space left in `disk/models`", "free some and try again"),
    "ro": ("read-only", "registry `disk/models` is read-only", "check its mount"),
}


@pytest.mark.needs("mounts")
@pytest.mark.parametrize("options", DISKS)
def test_a_disk_that_refuses_keeps_the_run_to_publish_later(work: Path, options: str) -> None:
    """In a mount namespace of its own, so that what is mounted is gone when it ends."""
    (work / "disk").mkdir()
    earlier = set(work.glob("runs/*/*"))
    train = shlex.join([sys.executable, "-m", "ocad", *HELLO, "--registry", "disk/models", "--json"])
    script = f"mount -t tmpfs -o {options} tmpfs disk && exec {train}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*mount_namespace(), "sh", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    code, message, hint = DISKS[options]
    error = json.loads(done.stdout)["error"]
    run = str((set(work.glob("runs/*/*")) - earlier).pop().relative_to(work))
    assert (done.returncode, error["code"], error["message"]) == (
        1,
        code,
        f"{message} while publishing `hello-udp_echo`",
    )
    assert error["hint"] == f"nothing was published; {hint}; then `ocad train --resume {run}` publishes the trained run"
    resumed = program("train", "--resume", run, "--json")
    assert (resumed.returncode, json.loads(resumed.stdout)["run"]) == (0, run)
