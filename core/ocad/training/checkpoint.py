"""Checkpoints: plain tensors and numbers in torch's zip format, written atomically and read without unpickling code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, cast

import torch

from ocad.errors import CheckpointError

FORMAT = 1
"""The layout of the dictionary that `ocad.training.loop` writes."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` to `path` so that a crash leaves either the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in `path`, tensors on the CPU.

    Raises `CheckpointError` when the file is missing, damaged, holds anything but plain data, or has another format.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint `{path}`", "give a run folder whose `checkpoints/` has a `last.pth`")
    try:
        # torch reads past a flipped byte in a tensor: the checksums of the zip container find it.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"bad checksum in `{damaged}`")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises pickle, zip, runtime, key and end-of-file errors alike
        raise _corrupt(path, _reason(error)) from None
    if not isinstance(state, dict) or "format" not in state:
        raise _corrupt(path, "it is not a checkpoint of this program")
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"the checkpoint `{path}` has format {state['format']}, this program reads {FORMAT}",
            "resume with the version of ocad that wrote it",
        )
    return cast("dict[str, Any]", state)


def _corrupt(path: Path, reason: str) -> CheckpointError:
    hint = "resume from another checkpoint: copy `best.pth` or an `epoch_*.pth` over it, or start a new run"
    return CheckpointError(f"the checkpoint `{path}` is corrupt ({reason})", hint)


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    first = text[0].rstrip(".") if text else type(error).__name__
    return first[:1].lower() + first[1:160]
