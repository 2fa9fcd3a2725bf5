"""From settings to the detector that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ocad.detection.detector import SeriesDetector
from ocad_subspace.config import SubspaceConfig
from ocad_subspace.detector import SubspaceDetector
from ocad_subspace.ranks import RankDetector


def build_detector(config: SubspaceConfig, metrics: Sequence[str]) -> SeriesDetector:
    """The detector of `config.method` over the columns `metrics`, not fitted."""
    method = config.method
    if method == "auto":
        method = "rank" if len(metrics) == 1 else "pca"
    return RankDetector(metrics, config.rank) if method == "rank" else SubspaceDetector(metrics, config.pca)


def read_detector(value: Mapping[str, Any]) -> SeriesDetector:
    """The detector of either method that `to_json` wrote."""
    kind = RankDetector if "seeds" in value["parameters"] else SubspaceDetector
    return kind.from_json(value)
