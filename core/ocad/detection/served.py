"""The graphs behind detectors, asked of a server instead of in this process, with equal answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ocad.detection.ensemble import Ensemble
from ocad.detection.remote import RemotePredictor
from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.protocols import Predictor
    from ocad_registry import Registry


@runtime_checkable
class AsksGraphs(Protocol):
    """A detector that asks graphs of registered versions, and lets others answer for them."""

    def graphs(self) -> Mapping[str, Predictor]:
        """What answers now for each version, by its reference."""
        ...

    def use_graph(self, reference: str, predictor: Predictor, /) -> None:
        """From now on `predictor` answers for the version `reference`."""
        ...


def use_server(model: object, registry: Registry, url: str) -> list[str]:
    """Lets the server at `url` answer for every graph of `model`, a detector or an ensemble of them.

    Returns the references of the versions that are asked there. Raises `UsageError` when there is none.
    """
    detectors = model.members.values() if isinstance(model, Ensemble) else [model]
    asked = []
    for detector in detectors:
        if isinstance(detector, AsksGraphs):
            for reference in list(detector.graphs()):
                detector.use_graph(reference, RemotePredictor(url, registry.resolve(reference)))
                asked.append(reference)
    if not asked:
        raise UsageError("nothing here has a graph that a server could answer for", "run without `--server`")
    return asked
