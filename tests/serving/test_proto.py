"""The protocol file that is written out here names the messages, fields, numbers and types of the official client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

PROTO = Path(__file__).resolve().parents[2] / "serving" / "proto"
FIELD = re.compile(
    r"^(?P<label>repeated |optional )?(?P<type>map<\w+, *[\w.]+>|[\w.]+) (?P<name>\w+) = (?P<number>\d+)\b"
)
SCALARS = {
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}


class Field(NamedTuple):
    """A field as it goes over the wire; `type` is a scalar's name, or `message`, `enum` or `map<key, value>`."""

    number: int
    repeated: bool
    type: str


Messages = dict[str, dict[str, Field]]


def written() -> tuple[Messages, dict[str, tuple[str, str]]]:
    """The messages of our files by dotted name, and the methods with their two messages."""
    messages: Messages = {}
    methods: dict[str, tuple[str, str]] = {}
    for path in sorted(PROTO.rglob("*.proto")):
        stack: list[str] = []
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for part in re.findall(r"[^;{}]+[;{]|}", re.sub(r"\s+", " ", text)):
            piece = part.strip()
            if piece == "}":
                stack.pop()
            elif found := re.match(r"rpc (\w+) ?\( ?(stream )?(\w+) ?\) ?returns ?\( ?(stream )?(\w+) ?\)", piece):
                methods[found[1]] = (found[3], found[5])
                if piece.endswith("{"):
                    stack.append("rpc")
            elif piece.endswith("{"):
                kind, _, name = piece.removesuffix("{").strip().partition(" ")
                stack.append(f"{kind} {name}")
                if kind == "message":
                    messages[_path(stack)] = {}
            elif (field := FIELD.match(piece)) and stack and not stack[-1].startswith("enum"):
                messages[_path(stack)][field["name"]] = Field(
                    int(field["number"]), field["label"] == "repeated ", field["type"]
                )
    return messages, methods


def _path(stack: list[str]) -> str:
    return ".".join(part.partition(" ")[2] for part in stack if part.startswith("message "))


def official() -> Messages:
    """The messages of tritonclient."""
    found: Messages = {}

    def add(descriptor: object, prefix: str = "") -> None:
        name = f"{prefix}{descriptor.name}"  # type: ignore[attr-defined]
        found[name] = {field.name: _field(field) for field in descriptor.fields}  # type: ignore[attr-defined]
        for nested in descriptor.nested_types:  # type: ignore[attr-defined]
            if not nested.GetOptions().map_entry:
                add(nested, f"{name}.")

    for module in (service_pb2, model_config_pb2):
        for message in module.DESCRIPTOR.message_types_by_name.values():
            add(message)
    return found


def _field(field: FieldDescriptor) -> Field:
    repeated = bool(field.is_repeated)
    if field.message_type and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[part] for part in ("key", "value"))
        return Field(field.number, False, f"map<{_type(key)}, {_type(value)}>")
    return Field(field.number, repeated, _type(field))


def _type(field: FieldDescriptor) -> str:
    reference = field.message_type or field.enum_type
    return reference.name if reference else SCALARS[field.type]


def _short(field: Field) -> Field:
    """Types without the names around them: `ModelConfig.Kind` and `inference.Kind` are both `Kind`."""
    return field._replace(type=re.sub(r"[\w.]*\.", "", field.type).replace(",", ", ").replace("  ", " "))


MESSAGES, METHODS = written()


def test_the_files_were_read() -> None:
    assert {"ModelInferRequest", "ModelInferResponse.InferOutputTensor", "InferParameter"} <= set(MESSAGES)
    assert MESSAGES["ModelInferRequest"]["raw_input_contents"] == Field(7, True, "bytes")


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_message_is_the_clients(name: str) -> None:
    theirs = official()[name]
    ours = {field: _short(value) for field, value in MESSAGES[name].items()}
    assert ours == {field: _short(theirs[field]) for field in ours if field in theirs}
    if name.startswith(
        ("ModelInfer", "InferTensorContents", "InferParameter", "Server", "ModelMetadata", "ModelReady")
    ):
        assert set(ours) == set(theirs), "what inference needs is there whole"


def test_the_methods_are_the_clients() -> None:
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    theirs = {method.name: (method.input_type.name, method.output_type.name) for method in service.methods}
    needed = {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelConfig"}
    needed |= {"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"}
    assert needed <= set(METHODS)
    assert {name: theirs[name] for name in METHODS} == METHODS
