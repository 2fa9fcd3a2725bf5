"""Every element type that ONNX and the protocol share, both ways, over both protocols and all four clients."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tests.serving.graphs import ELEMENT_TYPES, Array, ElementType
from tests.serving.servers import Server

EACH_TYPE = pytest.mark.parametrize("element", ELEMENT_TYPES, ids=lambda element: element.name)
EACH_CLIENT = pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])


def rows(element: ElementType) -> Array:
    """Two rows `(2, 4)`; strings as tritonclient wants them."""
    values = [value.encode() for value in element.values] if element.name == "BYTES" else element.values
    return np.array([values, values[::-1]], dtype=element.numpy)


def asked(client: Any, element: ElementType, values: Array, **how: Any) -> Any:
    """The input of a request."""
    wanted = client.InferInput("x", list(values.shape), element.name)
    wanted.set_data_from_numpy(values, **how)
    return wanted


@EACH_TYPE
@EACH_CLIENT
def test_binary_values_come_back_as_they_were_sent(server: Server, client: Any, element: ElementType) -> None:
    sent = rows(element)
    with client.InferenceServerClient(server.http if client is tritonclient.http else server.grpc) as connection:
        answer = connection.infer(f"echo-{element.name.lower()}", [asked(client, element, sent)])
    received = answer.as_numpy("y")
    assert received.dtype == sent.dtype
    assert received.tolist() == sent.tolist()


@EACH_TYPE
def test_json_values_come_back_as_they_were_sent(server: Server, element: ElementType) -> None:
    sent = {"name": "x", "datatype": element.name, "shape": [2, 4], "data": element.values * 2}
    output = server.infer(f"echo-{element.name.lower()}", [sent]).json()["outputs"][0]
    assert (output["name"], output["datatype"], output["shape"]) == ("y", element.name, [2, 4])
    typed = str if element.name == "BYTES" else element.numpy
    assert [typed(value) for value in output["data"]] == [typed(value) for value in element.values * 2]


@EACH_TYPE
def test_nested_json_values_are_read(server: Server, element: ElementType) -> None:
    sent = {"name": "x", "datatype": element.name, "shape": [1, 4], "data": [element.values]}
    nested, flat = (
        server.infer(f"echo-{element.name.lower()}", [sent | {"data": data}]).json()["outputs"][0]["data"]
        for data in ([element.values], element.values)
    )
    assert nested == flat


@pytest.mark.parametrize(("send", "receive"), [(True, False), (False, True)], ids=["binary in", "binary out"])
@pytest.mark.parametrize("element", [e for e in ELEMENT_TYPES if e.name != "FP16"], ids=lambda element: element.name)
def test_json_and_binary_mix(server: Server, element: ElementType, send: bool, receive: bool) -> None:
    client, sent = tritonclient.http, rows(element)
    with client.InferenceServerClient(server.http) as connection:
        answer = connection.infer(
            f"echo-{element.name.lower()}",
            [asked(client, element, sent, binary_data=send)],
            outputs=[client.InferRequestedOutput("y", binary_data=receive)],
        )
    assert ("data" in answer.get_output("y")) is not receive
    received = answer.as_numpy("y")
    if element.name == "BYTES" and not receive:
        received = np.char.encode(received.astype(str)).astype(object)
    assert received.tolist() == sent.tolist()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_cannot_write_are_null_in_json_and_exact_in_binary(server: Server, value: float) -> None:
    sent = np.full((1, 4), value, np.float32)
    element = next(element for element in ELEMENT_TYPES if element.name == "FP32")
    client = tritonclient.http
    with client.InferenceServerClient(server.http) as connection:
        exact = connection.infer("echo-fp32", [asked(client, element, sent)]).as_numpy("y")
        written = connection.infer(
            "echo-fp32",
            [asked(client, element, sent)],
            outputs=[client.InferRequestedOutput("y", binary_data=False)],
        ).get_output("y")["data"]
    np.testing.assert_array_equal(exact, sent)
    assert written == [None] * 4


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_asyncio_clients_get_every_type_at_once(server: Server, protocol: str) -> None:
    client: Any = tritonclient.http.aio if protocol == "http" else tritonclient.grpc.aio
    inputs: Any = tritonclient.http if protocol == "http" else tritonclient.grpc

    async def ask() -> list[Array]:
        async with client.InferenceServerClient(getattr(server, protocol)) as connection:
            assert await connection.is_server_ready()
            calls = [
                connection.infer(f"echo-{element.name.lower()}", [asked(inputs, element, rows(element))])
                for element in ELEMENT_TYPES
            ]
            return [answer.as_numpy("y") for answer in await asyncio.gather(*calls)]

    for element, received in zip(ELEMENT_TYPES, asyncio.run(ask()), strict=True):
        assert received.tolist() == rows(element).tolist()
