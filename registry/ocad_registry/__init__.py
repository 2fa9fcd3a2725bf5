"""A model registry that is only files: immutable versions, append-only aliases, evidence in JSON (see FORMAT.md).

    from ocad_registry import Registry
    version = Registry("models").resolve("tcn-udp_echo@production")
    version.file("onnx")

The manifest models (pydantic), and what handles whole versions, are imported when they are first asked for, so that resolving
a reference stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ocad_registry.aliases import AliasEntry
from ocad_registry.errors import (
    Corrupt,
    ExpectationFailed,
    InUse,
    Invalid,
    InvalidDraft,
    InvalidName,
    InvalidQuery,
    NewerFormat,
    NotFound,
    Refused,
    RegistryError,
    StorageFailed,
    VersionExists,
)
from ocad_registry.listing import Entry, Page
from ocad_registry.publishing import Artifact
from ocad_registry.store import Registry
from ocad_registry.verification import Finding
from ocad_registry.versions import Version

if TYPE_CHECKING:
    from ocad_registry.collection import Garbage
    from ocad_registry.deletion import Tombstone
    from ocad_registry.difference import Change
    from ocad_registry.manifest import (
        DataReference,
        Draft,
        File,
        GateResult,
        Manifest,
        Parent,
        Parity,
        PluginReference,
        Signature,
        Tensor,
    )
    from ocad_registry.modes import Mode
    from ocad_registry.signing import Keys, Signed
    from ocad_registry.transfer import Copied

__version__ = "0.1.0"

_LATER = {
    "Change": "difference",
    "Copied": "transfer",
    "DataReference": "manifest",
    "Draft": "manifest",
    "File": "manifest",
    "Garbage": "collection",
    "GateResult": "manifest",
    "Keys": "signing",
    "Manifest": "manifest",
    "Mode": "modes",
    "Parent": "manifest",
    "Parity": "manifest",
    "PluginReference": "manifest",
    "Signature": "manifest",
    "Signed": "signing",
    "Tensor": "manifest",
    "Tombstone": "deletion",
}
"""Public names and the modules that are imported when they are asked for."""

__all__ = [
    "AliasEntry",
    "Artifact",
    "Change",
    "Copied",
    "Corrupt",
    "DataReference",
    "Draft",
    "Entry",
    "ExpectationFailed",
    "File",
    "Finding",
    "Garbage",
    "GateResult",
    "InUse",
    "Invalid",
    "InvalidDraft",
    "InvalidName",
    "InvalidQuery",
    "Keys",
    "Manifest",
    "Mode",
    "NewerFormat",
    "NotFound",
    "Page",
    "Parent",
    "Parity",
    "PluginReference",
    "Refused",
    "Registry",
    "RegistryError",
    "Signature",
    "Signed",
    "StorageFailed",
    "Tensor",
    "Tombstone",
    "Version",
    "VersionExists",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"ocad_registry.{_LATER[name]}"), name)
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
