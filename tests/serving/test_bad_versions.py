"""Versions that would freeze or end a server: none keeps another from being served, followed or stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tests.serving import graphs
from tests.serving.conftest import Launch
from tests.serving.graphs import Graph
from tests.serving.registries import publish
from tests.serving.servers import Server, tensor, wait_for
from tritonclient.utils import InferenceServerException

from ocad_registry import Registry

ROW = tensor("x", "FP32", [[1.0, 2.0]])
OPTIONS = ("--poll", "0.05", "--load-timeout", "1")
FAILED = 'ocad_server_loads_total{model="bad",outcome="failed"}'
ENDLESS = 2**62

LARGE = "takes more than"
LATE = "did not load and run once within 1 s (`--load-timeout`)"
BAD: dict[str, tuple[Callable[[], Graph], str]] = {
    "a vector of 2^45": (lambda: graphs.identity([2**45]), LARGE),
    "rows of 2^33": (lambda: graphs.identity([-1, 2**33]), LARGE),
    "more than can be counted": (lambda: graphs.identity([2**40, 2**40]), LARGE),
    "a free dimension narrowed to 2^40": (lambda: graphs.identity([-1, -1], [-1, 2**40]), LARGE),
    "an endless loop": (graphs.endless, LATE),
    "functions that double": (lambda: graphs.doubling(30), LATE),
}
bad = pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=list(BAD))


def problems(server: Server) -> dict[str, str]:
    found: dict[str, str] = server.get("/v2/health/ready").json()["problems"]
    return found


def factor(server: Server, name: str, selector: str = "") -> float:
    value: float = server.infer(name, [ROW], selector).json()["outputs"][0]["data"][0]
    return value


def ends(server: Server) -> int:
    """The exit status of a server that is told to stop and must not need to be killed."""
    server.process.send_signal(signal.SIGTERM)
    return server.process.wait(60)


@bad
def test_a_bad_version_at_the_start_stops_nobody_else(
    launch: Launch, models: Path, make: Callable[[], Graph], reason: str
) -> None:
    publish(models, "bad", make())
    server = launch(models, *OPTIONS, ready=False)
    wait_for(lambda: reason in problems(server).get("bad", ""), "the reason")
    assert str(models) not in problems(server)["bad"]
    assert server.get("/v2/health/ready").status == 503, "a model that was there at the start is missing"
    assert factor(server, "scale") == 1.0
    publish(models, "scale", graphs.scale(2.0))
    Registry(models).promote("scale@1.1.0", "production")
    wait_for(lambda: factor(server, "scale") == 2.0, "promotions to be followed")
    assert server.infer("bad", [ROW]).status == 503
    assert ends(server) == 0


@bad
def test_a_promotion_to_a_bad_version_leaves_the_old_one(
    launch: Launch, models: Path, make: Callable[[], Graph], reason: str
) -> None:
    publish(models, "bad", graphs.scale(5.0))
    Registry(models).promote("bad@1.0.0", "production")
    server = launch(models, *OPTIONS)
    publish(models, "bad", make())
    Registry(models).promote("bad@1.1.0", "production")
    wait_for(lambda: reason in problems(server).get("bad", ""), "the reason")
    assert server.get("/v2/health/ready").status == 200
    assert factor(server, "bad") == 5.0
    Registry(models).rollback("bad", "production")
    wait_for(lambda: problems(server) == {}, "the rollback")
    publish(models, "bad", graphs.scale(6.0))
    Registry(models).promote("bad@1.2.0", "production")
    wait_for(lambda: factor(server, "bad") == 6.0, "a good version of the same model")
    assert ends(server) == 0


@bad
def test_clients_that_ask_for_a_bad_version_cost_one_load(
    launch: Launch, models: Path, make: Callable[[], Graph], reason: str
) -> None:
    publish(models, "bad", graphs.scale(5.0))
    Registry(models).promote("bad@1.0.0", "production")
    publish(models, "bad", make())
    server = launch(models, *OPTIONS)
    statuses: list[int] = []
    clients = [
        threading.Thread(target=lambda: statuses.append(server.get("/v2/models/bad/versions/1.1.0").status))
        for _ in range(20)
    ]
    for client in clients:
        client.start()
    assert factor(server, "scale") == 1.0, "meanwhile"
    for client in clients:
        client.join()
    assert statuses == [503] * 20
    answer = server.infer("bad", [ROW], "1.1.0")
    assert answer.status == 503
    assert reason in answer.error
    assert server.metrics()[FAILED] == 1
    assert factor(server, "bad") == 5.0
    assert ends(server) == 0


def test_what_failed_is_not_loaded_at_each_look(launch: Launch, models: Path) -> None:
    publish(models, "bad", graphs.endless())
    server = launch(models, *OPTIONS, "--allow-control", ready=False)
    wait_for(lambda: LATE in problems(server).get("bad", ""), "the reason")
    for number in range(5):
        publish(models, f"other{number}", graphs.scale(1.0))
        wait_for(lambda number=number: server.get(f"/v2/models/other{number}/ready").status == 200, "the next look")  # type: ignore[misc]
    assert server.metrics()[FAILED] == 1
    assert server.request("POST", "/v2/repository/models/bad/load").status == 503
    assert server.metrics()[FAILED] == 2, "an operator who asks for it gets another try"


def test_a_stop_does_not_wait_for_a_load(launch: Launch, models: Path) -> None:
    for number in range(6):
        publish(models, f"bad{number}", graphs.endless())
        publish(models, f"worse{number}", graphs.doubling(30))
    server = launch(models, "--load-timeout", "3600", ready=False)
    wait_for(lambda: server.infer("scale", [ROW]).status == 200, "the model that is well", 60)
    assert ends(server) == 0


def test_loads_that_cannot_be_ended_are_counted(launch: Launch, models: Path) -> None:
    bad = [f"bad{number}" for number in range(12)]
    server = launch(models, "--poll", "0.05", "--load-timeout", "3")
    for name in bad:
        publish(models, name, graphs.doubling(30))

    def told(text: str) -> list[str]:
        return [name for name, problem in problems(server).items() if text in problem]

    def given_up() -> list[str]:
        return told("the runtime does not end it")

    wait_for(lambda: sorted(given_up() + told("nothing more is loaded")) == sorted(bad), "the limit")
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    threads = [task for task in tasks if (task / "comm").read_text(encoding="ascii") == "load\n"]
    assert 4 <= len(given_up()) == len(threads) < len(bad)
    assert factor(server, "scale") == 1.0, "what was loaded before goes on"
    assert ends(server) == 0


def test_a_run_past_its_deadline_gives_its_thread_back(launch: Launch, models: Path) -> None:
    publish(models, "busy", graphs.busy())
    server = launch(models, "--model-threads", "1", "--timeout", "2")
    asked = [tensor("x", "INT64", [[ENDLESS]])]
    assert server.infer("busy", asked).status == 504
    wait_for(lambda: not server.is_inferring(), "the thread to come back", 60)
    assert server.infer("busy", [tensor("x", "INT64", [[3]])]).json()["outputs"][0]["data"] == [3]
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        given = tritonclient.grpc.InferInput("x", [1, 1], "INT64")
        given.set_data_from_numpy(np.array([[ENDLESS]], np.int64))
        with pytest.raises(InferenceServerException) as caught:
            client.infer("busy", [given])
        assert caught.value.status() == str(grpc.StatusCode.DEADLINE_EXCEEDED)
    wait_for(lambda: not server.is_inferring(), "the thread to come back", 60)
    assert server.infer("busy", [tensor("x", "INT64", [[4]])]).json()["outputs"][0]["data"] == [4]
    assert ends(server) == 0


def test_a_client_that_leaves_does_not_keep_its_run_going(launch: Launch, models: Path) -> None:
    publish(models, "busy", graphs.busy())
    server = launch(models, "--model-threads", "1", "--timeout", "1")
    body = b'{"inputs": [{"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [%d]}]}' % ENDLESS
    connection = server.connection()
    connection.request("POST", "/v2/models/busy/infer", body)
    wait_for(server.is_inferring, "the run")
    connection.close()
    wait_for(lambda: not server.is_inferring(), "the thread to come back", 60)
    assert server.infer("busy", [tensor("x", "INT64", [[3]])]).status == 200


def test_neighbours_of_an_endless_request_are_answered(launch: Launch, models: Path) -> None:
    """Whoever shares its batch, or comes after it, gets an answer: a result or that it took too long."""
    publish(models, "busy", graphs.busy())
    server = launch(models, "--model-threads", "1", "--max-wait-us", "300000", "--timeout", "2")
    statuses: dict[int, list[int]] = {ENDLESS: [], 3: []}

    def ask(value: int) -> None:
        statuses[value].append(server.infer("busy", [tensor("x", "INT64", [[value]])]).status)

    clients = [threading.Thread(target=ask, args=(value,)) for value in (3, ENDLESS, 3, 3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses[ENDLESS] == [504]
    assert set(statuses[3]) <= {200, 504}
    wait_for(lambda: server.infer("busy", [tensor("x", "INT64", [[3]])]).status == 200, "the thread to come back", 60)
