"""What a version says of itself: `metadata.json` of format 1, as pydantic models.

Names and meanings stand in FORMAT.md; unknown fields are kept. `Draft` is what a caller hands to `Registry.publish`,
`Manifest` what is stored. Importing this module imports pydantic; the package does so only when a manifest is needed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ocad_registry import names
from ocad_registry.errors import Corrupt, InvalidDraft, NewerFormat

FORMAT = 1

DIGEST = r"^[0-9a-f]{64}$"
ROLE = r"^[a-z][a-z0-9-]{0,63}$"
TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"
SAFE_INTEGER = 2**53 - 1

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=SAFE_INTEGER)]
Digest = Annotated[str, Field(pattern=DIGEST)]
Role = Annotated[str, Field(pattern=ROLE)]
Words = Annotated[str, Field(min_length=1)]


class Model(BaseModel):
    """The base: strict types, unknown fields kept, immutable."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False, regex_engine="rust-regex")


def _listed(value: Any) -> Any:
    """Callers may give tuples where JSON has arrays."""
    return list(value) if isinstance(value, tuple) else value


Dimension = Annotated[int, Field(ge=-1, le=SAFE_INTEGER)]
Shape = Annotated[list[Dimension], BeforeValidator(_listed)]
DataType = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16"
]  # fmt: skip


class Tensor(Model):
    """An input or output by the names of the Open Inference Protocol; -1 is a free dimension, `unit` such as `us`.

    `scale` (outputs): differences are divided by it before they meet a tolerance; 1 for probabilities and scores,
    the training standard deviation for values in µs.
    """

    name: Words
    dtype: DataType
    shape: Shape
    unit: str | None = None
    scale: Annotated[Number, Field(gt=0)] | None = None


class Signature(Model):
    """What the served graph takes and gives.

    `batchable`: whether the rows of a batch are proven not to depend on one another, so that those of several requests may
    run together; None where nobody has looked.
    """

    inputs: Annotated[list[Tensor], BeforeValidator(_listed)]
    outputs: Annotated[list[Tensor], BeforeValidator(_listed)]
    batchable: bool | None = None


class PluginReference(Model):
    """The plugin that made the version: entry-point name, its version, and the distribution it came from."""

    name: Words
    version: str
    package: str


class File(Model):
    """A payload file; `path` is relative to the version's folder."""

    path: str
    role: Role
    size: Count
    sha256: Digest
    media_type: str


class GateResult(Model):
    """One gate as it was decided: `observed op threshold`; `observed` is null where the metric is missing."""

    name: Words
    metric: Words
    op: Literal["<", "<=", ">", ">=", "=", "!="]
    threshold: Number
    observed: Number | None
    passed: bool


class Parity(Model):
    """How far the export is from the reference, on the output's scale, over `samples` rows."""

    reference: str
    samples: Count
    max_scaled_diff: Number
    tolerance: Number
    passed: bool


class DataReference(Model):
    """The data that the version was trained on: `rows` in all, `splits` by name; `fingerprint` is a sha256."""

    name: str
    fingerprint: str
    rows: Count
    splits: dict[str, Count] = {}


class Parent(Model):
    """A version that this one is built from, held by its digest."""

    ref: str
    metadata_sha256: Digest


class Evidence(Model):
    """What `Draft` and `Manifest` share."""

    name: str
    plugin: PluginReference
    task: Words
    metric: str | None = None
    signature: Signature | None = None
    params: dict[str, Any] = {}
    metrics: dict[str, Number] = {}
    gates: Annotated[list[GateResult], BeforeValidator(_listed)] = []
    parity: Parity | None = None
    data: DataReference | None = None
    parents: Annotated[list[Parent], BeforeValidator(_listed)] = []
    git_commit: str | None = None
    environment: dict[str, Any] = {}
    description: str = ""
    tags: dict[str, str] = {}

    def decide(self, roles: list[str]) -> bool:
        """Whether the version passes: at least one gate, all passed, and parity passed where there is an `onnx` file."""
        parity = "onnx" not in roles or (self.parity is not None and self.parity.passed)
        return parity and bool(self.gates) and all(gate.passed for gate in self.gates)

    def failures(self) -> list[str]:
        """Why `passed` is false, one line each; empty when it passed."""
        lines = [
            f"gate `{gate.name}`: `{gate.metric}` is {gate.observed}, not {gate.op} {gate.threshold}"
            for gate in self.gates
            if not gate.passed
        ]
        if not self.gates:
            lines.append("it has no gate")
        if self.parity and not self.parity.passed:
            lines.append(f"parity {self.parity.max_scaled_diff} is over {self.parity.tolerance}")
        return lines


class Draft(Evidence):
    """A version to be published; `publish` adds what only it can know (version, files, digests, time, `passed`)."""

    model_config = ConfigDict(extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidDraft(f"the draft is not valid: {explain(error)}", "correct that field") from None


class Manifest(Evidence):
    """`metadata.json` of format 1."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    version: str
    created_at: Annotated[str, Field(pattern=TIME)]
    """UTC with microseconds and `Z`, so that the order of the strings is the order of time."""
    files: list[File]
    metrics: dict[str, Number]
    gates: list[GateResult]
    passed: bool

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


def parse_manifest(document: dict[str, Any], name: str, version: str) -> Manifest:
    """The manifest in a parsed `metadata.json` that lies in `name/version`.

    Raises `NewerFormat`, or `Corrupt` with `bad-manifest`, `misplaced` or `bad-path`, in this order.
    """
    where = f"`{name}@{version}`"
    found = document.get("format")
    if type(found) is int and found > FORMAT:
        raise NewerFormat(where, found, FORMAT)
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise Corrupt("bad-manifest", f"metadata of {where}: {explain(error)}") from None
    check_manifest(manifest, name, version)
    return manifest


def check_manifest(manifest: Manifest, name: str, version: str) -> None:
    """The rules that a JSON Schema cannot say; raises `Corrupt`."""
    where = f"`{name}@{version}`"
    if manifest.name != name or manifest.version != version:
        raise Corrupt("misplaced", f"metadata of {where} says it is `{manifest.ref}`")
    paths = [file.path for file in manifest.files]
    for path in paths:
        if not names.is_path(path):
            raise Corrupt("bad-path", f"metadata of {where} lists the illegal path {path!r:.80}")
    if len(set(paths)) != len(paths):
        raise Corrupt("bad-manifest", f"metadata of {where} lists a path twice")
    roles = [file.role for file in manifest.files]
    if roles.count("onnx") > 1:
        raise Corrupt("bad-manifest", f"metadata of {where} lists more than one `onnx` file")
    if manifest.passed != manifest.decide(roles):
        raise Corrupt(
            "bad-manifest", f"metadata of {where} says passed = {manifest.passed}, its gates and parity do not"
        )


def explain(error: ValidationError) -> str:
    """The first complaint of pydantic in one line: where and what."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"`{place}`: {first['msg'][:1].lower()}{first['msg'][1:]}"
