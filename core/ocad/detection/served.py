"""The graphs behind detectors, asked of a server instead of in this process, with equal answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ocad.detection.ensemble import Ensemble
from ocad.detection.remote import RemotePredictor, ServerError
from ocad.errors import UsageError

if TYPE_CHECKING:
    from ocad.protocols import Predictor
    from ocad_registry import Registry


FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0


@runtime_checkable
class AsksGraphs(Protocol):
    """A detector that asks graphs of registered versions, and lets others answer for them."""

    def graphs(self) -> Mapping[str, Predictor]:
        """What answers now for each version, by its reference."""
        ...

    def use_graph(self, reference: str, predictor: Predictor, /) -> None:
        """From now on `predictor` answers for the version `reference`."""
        ...


class Patient:
    """A predictor that asks again while its server is away.

    `failed` is told of each failure and how many seconds to wait, which it does, or raises; `answered` of each answer.
    """

    def __init__(
        self, predictor: Predictor, failed: Callable[[ServerError, float], None], answered: Callable[[], None]
    ) -> None:
        self._predictor, self._failed, self._answered = predictor, failed, answered

    def predict(self, inputs: Any) -> dict[str, Any]:
        """As that of the predictor, once it answers."""
        wait = FIRST_WAIT_S
        while True:
            try:
                answer = self._predictor.predict(inputs)
            except ServerError as error:
                self._failed(error, wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                self._answered()
                return answer


def use_server(
    model: object, registry: Registry, url: str, patient: Callable[[Predictor], Predictor] = lambda predictor: predictor
) -> list[str]:
    """Lets the server at `url` answer for every graph of `model`, a detector or an ensemble of them, each by `patient`.

    Returns the references of the versions that are asked there. Raises `UsageError` when there is none.
    """
    detectors = model.members.values() if isinstance(model, Ensemble) else [model]
    asked = []
    for detector in detectors:
        if isinstance(detector, AsksGraphs):
            for reference in list(detector.graphs()):
                detector.use_graph(reference, patient(RemotePredictor(url, registry.resolve(reference))))
                asked.append(reference)
    if not asked:
        raise UsageError("nothing here has a graph that a server could answer for", "run without `--server`")
    return asked
