"""Members asked at the real server over the Open Inference Protocol answer as they do in this process."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from tests.composite.conftest import REFERENCES, Workshop
from tests.serving.servers import Server

from ocad.catalogue import find_data
from ocad.detection.remote import RemotePredictor, ServerError
from ocad.detection.served import use_server
from ocad.errors import UsageError
from ocad.timeseries.frame import read_frame
from ocad_composite.stored import Composite

FOREST = "isolation_forest-udp_echo@1.0.0"


@pytest.fixture(scope="module")
def composite(workshop: Workshop) -> str:
    """A composite whose second member has a graph, and a weight."""
    workshop.train("isolation_forest", "gates=[]")
    return workshop.train_composite(
        "gates=[]", "weights=[1,1]", "rule.search=false", members=f"{REFERENCES[1]},{FOREST}"
    ).version.ref


@pytest.fixture(scope="module")
def server(workshop: Workshop, composite: str) -> Iterator[Server]:
    with Server(workshop.folder / "models") as running:
        running.wait_ready()
        yield running


def load(workshop: Workshop, reference: str) -> Composite:
    loaded = workshop.session.load(reference)
    assert isinstance(loaded, Composite)
    return loaded


def rows(workshop: Workshop) -> pd.DataFrame:
    frame = read_frame(find_data(str(workshop.data)), ["udp_echo"]).data
    return frame[frame.groupby("endpoint").cumcount() < 1_000].reset_index(drop=True)


def test_answers_are_equal_by_frame_and_by_row(workshop: Workshop, composite: str, server: Server) -> None:
    here, there = load(workshop, composite), load(workshop, composite)
    assert use_server(there, workshop.registry, f"http://{server.http}") == [FOREST]
    forest = there.members["isolation_forest-udp_echo"]
    assert all(isinstance(graph, RemotePredictor) for graph in forest.graphs().values())  # type: ignore[attr-defined]
    frame = rows(workshop)
    expected, found = here.detect(frame), there.detect(frame)
    assert expected.incidents
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_array_equal(found.alarms, expected.alarms)
    assert [incident.id for incident in found.incidents] == [incident.id for incident in expected.incidents]
    there.forget()
    part = frame[frame["endpoint"] == "north"].head(60)
    moments = part["timestamp"].to_numpy("datetime64[us]").astype(np.int64).tolist()
    scores = [
        there.detect_point("north", moment, [value]).score
        for moment, value in zip(moments, part["udp_echo"], strict=True)
    ]
    np.testing.assert_allclose(scores, expected.scores[part.index], atol=1e-6)


def test_a_single_detector_is_asked_there_too(workshop: Workshop, composite: str, server: Server) -> None:
    here, there = workshop.session.load(FOREST), workshop.session.load(FOREST)
    assert use_server(there, workshop.registry, f"http://{server.http}") == [FOREST]
    frame = rows(workshop)
    np.testing.assert_allclose(there.score(frame), here.score(frame), atol=1e-6)  # type: ignore[union-attr]


def test_a_server_that_is_not_there_is_named(workshop: Workshop, composite: str) -> None:
    there = load(workshop, composite)
    use_server(there, workshop.registry, "http://127.0.0.1:1")
    with pytest.raises(ServerError, match=r"the server `http://127\.0\.0\.1:1` does not answer"):
        there.detect_point("north", 0, [400.0])


def test_nothing_to_ask_is_said(workshop: Workshop) -> None:
    rules = workshop.session.load(REFERENCES[1])
    with pytest.raises(UsageError, match="nothing here has a graph that a server could answer for"):
        use_server(rules, workshop.registry, "http://127.0.0.1:1")
