"""From settings to the detector that they describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ocad.detection.detector import SeriesDetector
from ocad_subspace.config import SubspaceConfig
from ocad_subspace.detector import SubspaceDetector
from ocad_subspace.ranks import RankDetector

DETECTORS: Mapping[str, type[SubspaceDetector] | type[RankDetector]] = {"pca": SubspaceDetector, "rank": RankDetector}
"""The detectors by `method`."""


def build_detector(config: SubspaceConfig, metrics: Sequence[str]) -> SeriesDetector:
    """The detector of `config.method` over the columns `metrics`, not fitted."""
    if config.method == "rank":
        return RankDetector(metrics, config.rank)
    return SubspaceDetector(metrics, config.pca)
