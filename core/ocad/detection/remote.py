"""A registered version asked over the Open Inference Protocol v2 instead of in this process, with equal answers.

Requests and answers carry their tensors as raw bytes (the protocol's binary tensor data extension), so values come back
to the bit. The exact version is asked for, and the answer must carry the digest that this registry holds for it.
"""

from __future__ import annotations

import errno
import http.client
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ocad.detection.deadline import Deadline
from ocad.errors import DataError, OcadError, UsageError, VerificationError, in_one_line, printable
from ocad.export.runtime import NUMPY_TYPES, check_inputs

if TYPE_CHECKING:
    from ocad.protocols import Arrays
    from ocad_registry import Version

BINARY_HEADER = "Inference-Header-Content-Length"
BACK_OFF_S, LONGEST_WAIT_S = 0.05, 2.0
MOST_ANSWER = 1 << 28
"""The longest answer that is read, in bytes."""
MOST_TOLD = 300
"""Characters of what a server says that an error shows."""
NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading something else than an answer raises."""
BUSY = (429, 503)
"""Statuses of a server that can answer a little later: its queue is full, or the model is not loaded yet."""


class ServerError(OcadError):
    """The server cannot be reached, does not know the version, or failed; exit code 1."""

    code = "server"


class RemotePredictor:
    """`version` answered by the server at `url` (`http://HOST:PORT`), over one connection that is kept open.

    `timeout` seconds are allowed for each attempt as a whole, and `MOST_ANSWER` bytes for its answer; an unreachable or
    busy server is asked `retries` times more, 0.05 s apart, doubling up to 2 s. `token` is the bearer token of a server
    that wants one. One thread at a time.
    """

    def __init__(self, url: str, version: Version, timeout: float = 5.0, retries: int = 3, token: str = "") -> None:
        signature = version.manifest.signature
        if signature is None or not any(file.role == "onnx" for file in version.files):
            raise UsageError(f"`{version.ref}` has no graph that a server could run", "let it run in process")
        self.url, self.ref, self.signature = url.rstrip("/"), version.ref, signature
        self.retries = retries
        self._digest = version.metadata_sha256
        self._types = {tensor.name: tensor.dtype for tensor in signature.inputs}
        self._timeout = timeout
        self._connection = _connection(url, timeout)
        self._path = f"{urlsplit(url).path.rstrip('/')}/v2/models/{version.name}/versions/{version.version}/infer"
        self._headers = {
            "Content-Type": "application/octet-stream",
            "X-Request-Timeout-Ms": str(max(1, int(timeout * 1000))),
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }

    def predict(self, inputs: Arrays | NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name for `inputs`, cast safely to the signature's dtypes; see `Predictor.predict`.

        Raises `ServerError` when no attempt was answered or the version is not there, `DataError` when the server
        refuses the inputs, `VerificationError` when it serves other files under the same version.
        """
        header, tensors = _encode(check_inputs(self.signature, inputs), self._types)
        body = b"".join([header, *tensors])
        status, headers, answer = self._ask(body, {**self._headers, BINARY_HEADER: str(len(header))})
        if status != http.client.OK:
            raise self._refusal(status, answer)
        try:
            digest, arrays = _decode(answer, headers)
        except NO_ANSWER as error:
            message = f"the server `{self.url}` answers no inference for `{self.ref}` ({_told(in_one_line(error))})"
            raise ServerError(message, "check that it is an Open Inference Protocol server") from None
        self._check_digest(digest)
        for tensor in self.signature.outputs:
            if tensor.name not in arrays:
                raise ServerError(f"the server `{self.url}` left out the output `{tensor.name}`", "restart the server")
            if arrays[tensor.name].dtype != np.dtype(NUMPY_TYPES[tensor.dtype]):
                message = f"the server `{self.url}` answers the output `{tensor.name}` in another type"
                raise ServerError(message, f"`{self.ref}` gives {tensor.dtype}; restart the server")
        return arrays

    def close(self) -> None:
        """Ends the connection; a later `predict` opens another."""
        self._connection.close()

    def _ask(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, http.client.HTTPMessage, bytes]:
        """The answer of the first attempt that the server is neither unreachable nor busy for, or of the last one."""
        for attempt in range(self.retries + 1):
            reused = self._connection.sock is not None
            wait = min(BACK_OFF_S * 2.0**attempt, LONGEST_WAIT_S)
            try:
                with Deadline(self._timeout) as deadline:
                    if self._connection.sock is None:
                        self._connection.connect()
                    deadline.watch(self._connection.sock)
                    self._connection.request("POST", self._path, body, dict(headers))
                    response = self._connection.getresponse()
                    answer = response.read(MOST_ANSWER + 1)
                if deadline.passed:
                    raise TimeoutError(errno.ETIMEDOUT, "timed out")
                if len(answer) > MOST_ANSWER:
                    raise http.client.HTTPException(f"its answer has more than {MOST_ANSWER} bytes")
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if attempt == self.retries:
                    raise self._unreachable(TimeoutError("timed out") if deadline.passed else error) from None
                wait = 0.0 if reused and attempt == 0 else wait  # a kept connection may just have been closed as idle
            else:
                if response.status not in BUSY or attempt == self.retries:
                    return response.status, response.headers, answer
                wait = _wished_wait(response.headers, wait)
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _unreachable(self, error: Exception) -> ServerError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        message = f"the server `{self.url}` does not answer ({str(reason).lower()}; {self.retries + 1} attempts)"
        return ServerError(message, "start it with `ocad serve`, or run without `--server`")

    def _refusal(self, status: int, answer: bytes) -> OcadError:
        try:
            reason = str(json.loads(answer)["error"])
        except NO_ANSWER:
            reason = f"HTTP {status}"
        said = f"the server `{self.url}` refused `{self.ref}` ({_told(reason)})"
        if status == http.client.NOT_FOUND:
            return ServerError(said, "let it serve the registry that holds this version")
        if status == http.client.BAD_REQUEST:
            return DataError(said, "give inputs that fit the signature")
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            return ServerError(said, "give the server's token")
        if status in BUSY:
            return ServerError(said, f"it stayed busy for {self.retries + 1} attempts; ask later, or ask for less")
        return ServerError(said, "see the server's log")

    def _check_digest(self, found: str) -> None:
        """Raises `VerificationError` unless the server says that it answered from these very files."""
        if not found:
            message = f"the server `{self.url}` does not say from which files it answered `{self.ref}`"
            raise VerificationError(message, "ask an `ocad-server`")
        if found != self._digest:
            message = f"the server `{self.url}` holds another `{self.ref}` (metadata sha256 {found:.12})"
            raise VerificationError(message, f"let it serve this registry, whose digest is {self._digest:.12}")


def _connection(url: str, timeout: float) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise UsageError(f"bad server address `{url}`", "write it as `http://HOST:PORT`")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(host, port, timeout=timeout)


def _wished_wait(headers: http.client.HTTPMessage, wait: float) -> float:
    """The server's `Retry-After` in seconds within bounds, else `wait`."""
    try:
        return min(max(wait, float(headers.get("Retry-After", wait))), LONGEST_WAIT_S)  # `wait` where it says NaN
    except ValueError:
        return wait


def _told(reason: str) -> str:
    """What a server said, as far as a line may show it."""
    return printable(" ".join(reason[: 8 * MOST_TOLD].split()))[:MOST_TOLD]


def _encode(inputs: Mapping[str, NDArray[Any]], types: Mapping[str, str]) -> tuple[bytes, list[bytes]]:
    """The JSON head of a request and the bytes of its tensors, in order."""
    tensors = [_to_bytes(array) for array in inputs.values()]
    described = [
        {
            "name": name,
            "datatype": types[name],
            "shape": list(array.shape),
            "parameters": {"binary_data_size": len(data)},
        }
        for (name, array), data in zip(inputs.items(), tensors, strict=True)
    ]
    head = {"inputs": described, "parameters": {"binary_data_output": True}}
    return json.dumps(head, separators=(",", ":")).encode(), tensors


def _to_bytes(array: NDArray[Any]) -> bytes:
    """Little-endian elements, row by row; each string behind its length in four bytes."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.ravel()]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _decode(body: bytes, headers: http.client.HTTPMessage) -> tuple[str, dict[str, NDArray[Any]]]:
    """The version's digest that an answer names, "" for none, and its tensors by name; raises one of `NO_ANSWER` otherwise."""
    length = int(headers.get(BINARY_HEADER, len(body)))
    document = json.loads(body[:length])
    arrays, start = {}, length
    for output in document["outputs"]:
        size = int(output["parameters"]["binary_data_size"])
        data = body[start : start + size]
        arrays[output["name"]] = _from_bytes(data, output["datatype"]).reshape(output["shape"])
        start += size
    return str((document.get("parameters") or {}).get("metadata_sha256", "")), arrays


def _from_bytes(data: bytes, datatype: str) -> NDArray[Any]:
    kind = NUMPY_TYPES[datatype]
    if kind is not np.object_:
        little = np.dtype(kind).newbyteorder("<")
        return np.frombuffer(data, little).astype(kind)  # a copy of its own, writable as onnxruntime's answers are
    texts, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        texts.append(data[start + 4 : end].decode())
        start = end
    return np.array(texts, dtype=object)
