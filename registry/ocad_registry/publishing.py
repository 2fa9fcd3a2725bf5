"""Publishing: copy, digest, check as a reader would, then one create of the whole version."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad_registry import digests, documents, names
from ocad_registry.aliases import now
from ocad_registry.errors import Corrupt, InvalidDraft, VersionExists
from ocad_registry.versions import DIGEST, METADATA, Version, check_external, is_deleted

if TYPE_CHECKING:
    from ocad_registry.manifest import Draft, Manifest
    from ocad_registry.storage import Staging, Storage, Stored

_MEDIA_TYPES = {
    ".onnx": "application/onnx",
    ".data": "application/octet-stream",
    ".parquet": "application/vnd.apache.parquet",
}
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to publish: copied from `path` under `name` (the path's own name when empty).

    `role` is one of `onnx`, `onnx-data`, `weights`, `estimator`, `index`, `preprocess`, `report`; `media_type` is guessed
    from the name when empty.
    """

    path: Path
    role: str
    media_type: str = ""
    name: str = ""

    @property
    def target(self) -> str:
        """The name in the version's folder."""
        return self.name or Path(self.path).name


def publish(
    storage: Storage, draft: Draft, artifacts: Sequence[Artifact], version: str | None, next_version: Callable[[], str]
) -> Version:
    """Publishes `draft` as `version`, or as the next free one; which `next_version` names anew for each attempt.

    Raises `VersionExists`, `InvalidDraft`, `OSError`.
    """
    _check(artifacts)
    staging = storage.stage()
    try:
        stored = [(artifact, _add(staging, artifact)) for artifact in artifacts]
        while True:
            if not version:
                staging.take_turn(draft.name)
            number = version or next_version()
            manifest, data = _manifest(draft, number, stored)
            _check_onnx(staging, manifest, stored)
            sha256 = digests.digest(data)
            try:
                _create(storage, staging, manifest, {METADATA: data, DIGEST: digests.digest_line(sha256)})
            except VersionExists:
                if version:
                    raise
                continue
            return Version(storage, draft.name, number, sha256)
    finally:
        staging.discard()


def _create(storage: Storage, staging: Staging, manifest: Manifest, written: dict[str, bytes]) -> None:
    error = VersionExists(f"`{manifest.ref}` exists already", "versions never change; publish under a new number")
    # asked before, for the usual case, and after, for a delete with its gc that came between
    if is_deleted(storage, manifest.name, manifest.version):
        raise error
    try:
        staging.publish(f"{manifest.name}/{manifest.version}", written)
    except FileExistsError:
        raise error from None
    if is_deleted(storage, manifest.name, manifest.version):
        raise error


def _check(artifacts: Sequence[Artifact]) -> None:
    targets = [artifact.target for artifact in artifacts]
    for artifact in artifacts:
        if not names.is_path(artifact.target) or "/" in artifact.target:
            raise InvalidDraft(
                f"`{artifact.target}` is no file name to publish", "use letters, digits, `.`, `_`, `-`, `+`"
            )
        if not Path(artifact.path).is_file():
            raise InvalidDraft(f"artifact `{artifact.path}` is no file", "write it before publishing")
    if len(set(targets)) != len(targets):
        raise InvalidDraft("two artifacts have the same file name", "give one of them another `name`")


def _add(staging: Staging, artifact: Artifact) -> Stored:
    return staging.add(Path(artifact.path), artifact.target)


def _manifest(draft: Draft, version: str, stored: list[tuple[Artifact, Stored]]) -> tuple[Manifest, bytes]:
    """The manifest and its bytes, read back from them exactly as a reader will."""
    from ocad_registry.manifest import FORMAT, parse_manifest

    document: dict[str, Any] = {"format": FORMAT, "name": draft.name, "version": version, "created_at": now()}
    document |= draft.model_dump()
    document["files"] = [
        {
            "path": file.path,
            "role": artifact.role,
            "size": file.size,
            "sha256": file.sha256,
            "media_type": artifact.media_type or _media_type(file.path),
        }
        for artifact, file in stored
    ]
    document["passed"] = draft.decide([artifact.role for artifact, _ in stored])
    try:
        data = documents.dump(document)
        if len(data) > documents.METADATA_LIMIT:
            raise InvalidDraft(
                f"metadata would be {len(data)} bytes, over {documents.METADATA_LIMIT}", "shorten `params`"
            )
        return parse_manifest(documents.parse(data, "the draft"), draft.name, version), data
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDraft(f"the draft cannot be written as JSON ({error})", "use plain finite JSON values") from None
    except Corrupt as error:
        raise InvalidDraft(f"no reader would accept the draft: {error.message}", "correct it") from None


def _check_onnx(staging: Staging, manifest: Manifest, stored: list[tuple[Artifact, Stored]]) -> None:
    for (artifact, file), listed in zip(stored, manifest.files, strict=True):
        if artifact.role == "onnx":
            try:
                check_external(staging.file(file), manifest, listed)
            except Corrupt as error:
                raise InvalidDraft(
                    error.message, "add it with the role `onnx-data`, or export the model again"
                ) from None


def _media_type(path: str) -> str:
    suffix = Path(path).suffix
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(path, strict=False)[0] or _UNKNOWN
