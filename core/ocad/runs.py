"""Run folders (DESIGN §5): what was asked, the resolved configuration, and everything that a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad.errors import CheckpointError, OcadError, UsageError

if TYPE_CHECKING:
    from ocad.config import PluginConfig

REQUEST_FILE, CONFIG_FILE, RESULT_FILE = "request.json", "config.yaml", "result.json"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What `ocad train` was asked for; kept in the run folder so that `--resume` needs nothing else."""

    plugin: str
    metric: str | None = None
    data: str | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None
    version: str | None = None
    promote: str | None = None
    runs: str = "runs"
    registry: str | None = None

    def model_name(self) -> str:
        """The model's name in the registry: as given, else plugin and metric, slugged."""
        return self.name or re.sub(r"[^a-z0-9._-]", "_", "-".join(filter(None, (self.plugin, self.metric))).lower())


def create_run(request: TrainRequest, config: PluginConfig) -> Path:
    """A new folder `runs/<name>/<UTC time>-<id>/` with the request and the resolved configuration."""
    from ocad.config import dump_config

    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    run = Path(request.runs, request.model_name(), f"{stamp}-{secrets.token_hex(3)}")
    try:
        run.mkdir(parents=True)
        write_atomically(run / CONFIG_FILE, dump_config(config))
        write_atomically(run / REQUEST_FILE, json.dumps(dataclasses.asdict(request), indent=2) + "\n")
    except OSError as error:
        raise OcadError(
            f"cannot write the run folder `{run}` ({str(error.strerror).lower()})", "choose another with `--runs`"
        ) from None
    return run


def read_run(run: Path) -> TrainRequest:
    """The request of an unfinished run, its configuration file as `config`, ready to be resumed.

    Raises `UsageError` when `run` is no run folder, `CheckpointError` when it is damaged, `OcadError` when it is finished.
    """
    if not (run / REQUEST_FILE).is_file():
        raise UsageError(f"`{run}` is not a run folder", "give one of the folders under `runs/`")
    if (run / RESULT_FILE).is_file():
        reference = json.loads((run / RESULT_FILE).read_text(encoding="utf-8"))["ref"]
        raise OcadError(
            f"the run `{run}` is finished and registered as `{reference}`", "start a new run without `--resume`"
        )
    try:
        values = json.loads((run / REQUEST_FILE).read_text(encoding="utf-8"))
        values |= {"overrides": (), "config": str(run / CONFIG_FILE)}
        return TrainRequest(**values)
    except (ValueError, TypeError):
        raise CheckpointError(f"the request in `{run / REQUEST_FILE}` is damaged", "start a new run") from None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` to `path` as JSON, atomically; non-finite numbers are refused."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Writes `text` to `path` so that a reader sees the old or the new content, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
