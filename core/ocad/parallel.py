"""Several metrics at once: one training process for each, as many at a time as there are cores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from ocad.errors import OcadError
from ocad.evidence import usable_cores


def train_each(metrics: Sequence[str], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Runs `ocad train --json --metric M ARGUMENTS` for each metric and returns their results in order.

    A metric whose training failed answers `{"metric", "error": {"code", "message", "hint"}}`; the others go on.
    """
    with ThreadPoolExecutor(max_workers=max(1, min(len(metrics), usable_cores()))) as pool:
        trainings = [pool.submit(_train_one, metric, arguments) for metric in metrics]
        try:
            wait(trainings)
        except KeyboardInterrupt:
            # the terminal's Ctrl-C reached the running processes as well: each ends by saying how to resume it
            pool.shutdown(cancel_futures=True)
    return [
        _interrupted(metric) if training.cancelled() else training.result()
        for metric, training in zip(metrics, trainings, strict=True)
    ]


def _interrupted(metric: str) -> dict[str, Any]:
    hint = "train it again"
    return {"metric": metric, "error": {"code": "interrupted", "message": "interrupted before it began", "hint": hint}}


def _train_one(metric: str, arguments: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "ocad", "train", "--json", "--metric", metric, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise OcadError(
            f"training of the metric `{metric}` ended with exit code {done.returncode} and no answer",
            "see its messages above",
        ) from None
    return {"metric": metric, **answer} if "error" in answer else dict(answer)
