"""Growing the forest with scikit-learn; the trees leave it as a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

from ocad.errors import DataError
from ocad.export.runtime import OnnxPredictor
from ocad_isolation_forest.graph import make_graph, signature

if TYPE_CHECKING:
    from ocad.detection.features import RollingFeatures
    from ocad_isolation_forest.detector import Growth


def grow(rows: NDArray[np.float32], features: RollingFeatures, growth: Growth) -> tuple[Any, OnnxPredictor]:
    """scikit-learn's forest on `rows` `(n, k)`, and its graph in onnxruntime; raises `DataError` for a single row."""
    if len(rows) < 2:
        raise DataError("a single row is left to grow a forest on", "give a longer series")
    forest = IsolationForest(
        n_estimators=growth.n_estimators,
        max_samples=min(growth.max_samples, len(rows)),
        random_state=growth.seed,
        n_jobs=1,
    )
    forest.fit(contaminated(rows, features, growth))
    graph = make_graph(forest).SerializeToString()
    return forest, OnnxPredictor(graph, signature(rows.shape[1]))


def contaminated(rows: NDArray[np.float32], features: RollingFeatures, growth: Growth) -> NDArray[np.float32]:
    """A copy of `rows` in which a share of them has one feature drawn uniformly from its range.

    Trees split only where their rows differ, so a forest grown on normal rows alone is blind to a feature that is
    constant there, such as a share of lost replies that is zero, and scores all beyond the range of normal alike.
    """
    generator = np.random.default_rng(growth.seed)
    places = np.flatnonzero(generator.random(len(rows)) < growth.contamination)
    columns = generator.integers(rows.shape[1], size=len(places))
    low, high = features.ranges(rows)
    result = rows.copy()
    result[places, columns] = generator.uniform(low[columns], high[columns])
    return result
