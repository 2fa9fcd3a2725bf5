"""Run folders: what was asked is kept, so that `--resume` needs nothing but the folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ocad.config import PluginConfig, load_config
from ocad.errors import CheckpointError, OcadError, UsageError
from ocad.evidence import environment, git_commit
from ocad.runs import REQUEST_FILE, RESULT_FILE, TrainRequest, create_run, read_run, write_json

REQUEST = TrainRequest("tcn", metric="udp_echo", data="link", overrides=("seed=3",), version="2.0.0", promote="staging")


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (REQUEST, "tcn-udp_echo"),
        (TrainRequest("tcn"), "tcn"),
        (TrainRequest("tcn", metric="RTT (µs)"), "tcn-rtt___s_"),
        (TrainRequest("tcn", metric="udp_echo", name="edge"), "edge"),
    ],
)
def test_a_model_is_named_after_its_plugin_and_metric(request_: TrainRequest, name: str) -> None:
    assert request_.model_name() == name


def test_a_run_is_resumed_with_the_configuration_that_was_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = create_run(REQUEST, PluginConfig(seed=3))
    assert run.parent == Path("runs/tcn-udp_echo")
    asked = read_run(run)
    assert (asked.plugin, asked.metric, asked.data, asked.version, asked.promote) == (
        "tcn",
        "udp_echo",
        "link",
        "2.0.0",
        "staging",
    )
    assert asked.overrides == ()
    assert load_config(PluginConfig, Path(str(asked.config))) == PluginConfig(seed=3)


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    asked = TrainRequest("tcn", runs=str(tmp_path))
    assert len({create_run(asked, PluginConfig()) for _ in range(20)}) == 20


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"plugin": "tcn", "epochs": 3}', "{}", "null"])
def test_a_damaged_request_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / REQUEST_FILE).write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == f"the request in `{tmp_path / REQUEST_FILE}` is damaged: start a new run"


def test_a_finished_run_names_its_version(tmp_path: Path) -> None:
    run = create_run(TrainRequest("tcn", runs=str(tmp_path)), PluginConfig())
    write_json(run / RESULT_FILE, {"ref": "tcn@1.0.0"})
    with pytest.raises(OcadError) as caught:
        read_run(run)
    assert str(caught.value) == (
        f"the run `{run}` is finished and registered as `tcn@1.0.0`: start a new run without `--resume`"
    )


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"mae": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"mae": float("nan")})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"mae": 1.5}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


def test_runs_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(OcadError, match=r"cannot write the run folder `.*` \(not a directory\): choose another with"):
        create_run(TrainRequest("tcn", runs=str(tmp_path / "runs")), PluginConfig())


def test_the_commit_is_recorded_with_what_differs_from_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_commit(tmp_path) is None
    git("init", "--quiet")
    (tmp_path / "model.py").write_text("1")
    git("add", "model.py")
    git("commit", "--quiet", "--message", "first")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "model.py").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "+dirty"


def test_the_environment_names_what_shapes_a_result() -> None:
    assert {"python", "platform", "cores", "ocad", "torch", "onnxruntime"} <= set(environment())
