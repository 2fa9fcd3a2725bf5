"""Forecasters that are one matrix product, registered as real versions, and rows of three metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from onnx import helper
from tests.serving.graphs import Port, graph

from ocad.export.onnx import write_onnx
from ocad.host import Host
from ocad.progress import SilentProgress
from ocad.session import Session
from ocad_registry import Artifact, Draft, GateResult, Parity, PluginReference, Registry, Signature, Tensor, Version

LENGTH = 6
WEIGHTS = (0.0, 0.05, 0.05, 0.1, 0.2, 0.6)
METRICS = ("udp_echo", "ecpri", "lbm")


def publish_forecaster(root: Path, name: str, metric: str | None, **more: Any) -> Version:
    """A version of the plugin `tcn` whose graph is a weighted sum of the window.

    `more` may have `weights`, `unit`, `shape` (of the input), `dtype`, `outputs` (shape), `task`, `version`, `deviation`.
    """
    weights = np.asarray(more.get("weights", WEIGHTS), np.float64)
    shape = more.get("shape", [-1, len(weights), 1])
    dtype, answer = more.get("dtype", "FP32"), more.get("outputs", [-1, 1])
    made = graph(
        [
            helper.make_node("Reshape", ["input", "flat"], ["window"]),
            helper.make_node("MatMul", ["window", "weights"], ["sum"]),
            helper.make_node("Reshape", ["sum", "answer"], ["forecast"]),
        ],
        [Port("input", dtype, shape)],
        [Port("forecast", dtype, answer)],
        {
            "weights": weights[:, None].astype(np.float32 if dtype == "FP32" else np.float64),
            "flat": np.array([-1, len(weights)]),
            "answer": np.array(answer),
        },
    )
    folder = root.parent / f"{root.name}-build"
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = [Artifact(file.path, file.role, file.media_type) for file in write_onnx(made.model, folder / "m.onnx")]
    unit = more.get("unit", "us")
    draft = Draft(
        name=name,
        plugin=PluginReference(name="tcn", version="1", package="ocad"),
        task=more.get("task", "forecast"),
        metric=metric,
        signature=Signature(
            inputs=[Tensor(name="input", dtype=dtype, shape=shape, unit=unit)],
            outputs=[Tensor(name="forecast", dtype=dtype, shape=answer, unit=unit, scale=more.get("deviation", 40.0))],
        ),
        metrics={"loss": 0.5},
        gates=[GateResult(name="loss", metric="loss", op="<", threshold=1.0, observed=0.5, passed=True)],
        parity=Parity(reference="test", samples=1, max_scaled_diff=0.0, tolerance=1e-5, passed=True),
    )
    return Registry(root).publish(draft, artifacts, more.get("version"))


def make_rows(
    rows: int = 1500, endpoints: Sequence[str] = ("a", "b"), metrics: Sequence[str] = METRICS, seed: int = 5
) -> pd.DataFrame:
    """A row a second of correlated noise around a wave, 1 % missing, a few gaps; `label` 0 everywhere."""
    random = np.random.default_rng(seed)
    parts = []
    for place, endpoint in enumerate(endpoints):
        times = np.cumsum(np.where(random.random(rows) < 0.003, 30, 1))
        columns: dict[str, Any] = {
            "timestamp": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(times, unit="s"),
            "endpoint": endpoint,
        }
        for metric in metrics:
            noise = np.convolve(random.normal(0, 6 * (place + 1), rows + 3), [0.5, 0.3, 0.2, 0.1], "valid")
            value = 300 * (place + 1) + 20 * np.sin(times / 60) + noise
            value[random.random(rows) < 0.01] = np.nan
            columns[metric] = value
        parts.append(pd.DataFrame({**columns, "label": np.zeros(rows, np.int8)}))
    return pd.concat(parts, ignore_index=True)


def open_session(root: Path) -> Session:
    """The host over the registry at `root`."""
    return Session(Host(), Registry(root), SilentProgress())
