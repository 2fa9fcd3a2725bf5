"""Signatures: ed25519 (RFC 8032) over `metadata.sha256`, and so over everything in a version (FORMAT.md §12).

A signature is a small file of its own beside the version, which never changes. Keys are the PEM files of OpenSSL: a secret
key in PKCS#8, public ones as SubjectPublicKeyInfo, any number of them in one file.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ocad_registry import digests, documents
from ocad_registry.aliases import now
from ocad_registry.errors import Corrupt, Invalid, StorageFailed
from ocad_registry.versions import SIGNATURES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from ocad_registry.storage import Storage
    from ocad_registry.versions import Version

ALGORITHM = "ed25519"
SIGNATURE_NAME = re.compile(r"[0-9a-f]{32}\.json")
KEYS_LIMIT = 1024 * 1024
_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END PUBLIC KEY-----")
_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""A SubjectPublicKeyInfo of ed25519 (RFC 8410) before its 32 bytes."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature of a version."""

    ref: str
    key_id: str
    metadata_sha256: str
    signature: str
    signed_at: str

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry sign --json` shows it."""
        return {"ref": self.ref, **self.document()}

    def document(self) -> dict[str, Any]:
        """The stored fields."""
        return {
            "algorithm": ALGORITHM,
            "key_id": self.key_id,
            "metadata_sha256": self.metadata_sha256,
            "signature": self.signature,
            "signed_at": self.signed_at,
        }


class Subject(Protocol):
    """What is signed: a `Version`, or what is known of one."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> str:
        """Its number."""
        ...

    @property
    def ref(self) -> str:
        """`name@version`."""
        ...

    @property
    def metadata_sha256(self) -> str:
        """The digest of its metadata."""
        ...


class Keys:
    """The public keys that are trusted, by key id: the first 32 hex digits of the sha256 of a key's 32 bytes."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self.keys = keys

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Keys:
        """The keys in the PEM file `path`; raises `Invalid` unless it holds at least one, and only ed25519 ones."""
        data = _read(Path(path), "the file of public keys")
        blocks = _PUBLIC.findall(data)
        if not blocks or len(blocks) != data.count(b"-----BEGIN "):
            raise Invalid(f"`{path}` is no list of public keys", "give PEM blocks `PUBLIC KEY`, and nothing secret")
        keys = [_public_bytes(block, path) for block in blocks]
        return cls({key_id(key): key for key in keys})


def create_key(path: str | os.PathLike[str]) -> str:
    """Writes a new secret key to `path` (mode 0600) and its public one to `path`.pub; the key id.

    Raises `Invalid` if one of them exists.
    """
    kind = _ed25519()
    from cryptography.hazmat.primitives import serialization

    key = kind.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for name, data, mode in ((os.fspath(path), secret, 0o600), (f"{os.fspath(path)}.pub", public, 0o644)):
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        except FileExistsError:
            raise Invalid(f"`{name}` exists", "keys are not overwritten; give another path") from None
        except OSError as error:
            raise Invalid(f"`{name}` cannot be written ({error.strerror})", "give another path") from None
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
    return key_id(_raw(key.public_key()))


def sign(storage: Storage, version: Version, key: str | os.PathLike[str]) -> Signed:
    """Signs `version` with the secret key in the PEM file `key`; one signature for each key.

    The first good one stays; what lies in its place and is none is removed.
    """
    secret = secret_key(Path(key))
    identifier = key_id(_raw(secret.public_key()))
    sha256 = version.metadata_sha256
    signature = base64.b64encode(secret.sign(digests.digest_line(sha256))).decode("ascii")
    signed = Signed(version.ref, identifier, sha256, signature, now())
    path = f"{version.name}/{SIGNATURES}/{version.version}/{identifier}.json"
    while True:
        try:
            storage.create(path, documents.dump(signed.document()))
        except FileExistsError:
            try:
                earlier = check_signature(storage, version, identifier, _raw(secret.public_key()))
            except Corrupt:
                if _is_signature(storage, path, identifier, _raw(secret.public_key())):
                    raise
                # whoever holds the key says what is its signature: junk in its place must not keep it out
                storage.remove(path)
                continue
            return Signed(version.ref, identifier, sha256, signature, earlier["signed_at"])
        return signed


def check_signed(storage: Storage, version: Subject, keys: Keys) -> str:
    """The id of a key in `keys` that signed `version`; raises `Corrupt`: `unsigned`, or `bad-signature`.

    One good signature is enough, whatever lies beside it.
    """
    folder = f"{version.name}/{SIGNATURES}/{version.version}"
    present = sorted(keys.keys.keys() & {name.removesuffix(".json") for name in storage.names(folder)})
    failed: Corrupt | None = None
    for identifier in present:
        try:
            check_signature(storage, version, identifier, keys.keys[identifier])
        except Corrupt as error:
            failed = failed or error
        else:
            return identifier
    if failed:
        raise failed
    known = ", ".join(f"`{identifier[:8]}…`" for identifier in sorted(keys.keys))
    raise Corrupt("unsigned", f"`{version.ref}` is not signed by {known}", "`ocad registry sign` signs it")


def check_signature(storage: Storage, version: Subject, identifier: str, public: bytes) -> dict[str, Any]:
    """The document of the signature by key `identifier`, verified.

    Raises `Corrupt` (`bad-signature`) unless it is the key's signature of `version`.
    """
    key = _public(public)
    from cryptography.exceptions import InvalidSignature

    where = f"the signature of `{version.ref}` by key `{identifier}`"
    hint = "sign with another key, publish it again under a new number, or remove the signature if it was put there"
    path = f"{version.name}/{SIGNATURES}/{version.version}/{identifier}.json"
    try:
        document = parse_signature(storage.read(path, documents.DOCUMENT_LIMIT), identifier)
        if document["metadata_sha256"] != version.metadata_sha256:
            raise Corrupt("bad-signature", "it is of other metadata")
        key.verify(_decode(document["signature"]), digests.digest_line(version.metadata_sha256))
    except FileNotFoundError:
        raise Corrupt("unsigned", f"{where} is missing", hint) from None
    except Corrupt as error:
        raise Corrupt("bad-signature", f"{where} is no good: {error.message}", hint) from None
    except InvalidSignature:
        raise Corrupt("bad-signature", f"{where} is forged, or of other metadata", hint) from None
    return document


def _is_signature(storage: Storage, path: str, identifier: str, public: bytes) -> bool:
    """Whether the key made what lies at `path`, of whatever metadata: then this version is not the one it was."""
    try:
        document = parse_signature(storage.read(path, documents.DOCUMENT_LIMIT), identifier)
    except (Corrupt, FileNotFoundError):
        return False
    message = digests.digest_line(document["metadata_sha256"])
    return verifies(Keys({identifier: public}), identifier, message, document["signature"])


def parse_signature(data: bytes, identifier: str) -> dict[str, Any]:
    """A signature's document; raises `Corrupt` (`bad-signature`) unless it is one of the key `identifier`."""
    try:
        document = documents.parse(data, "it")
    except Corrupt as error:
        raise Corrupt("bad-signature", error.message) from None
    texts = [document.get(field) for field in ("algorithm", "key_id", "metadata_sha256", "signature", "signed_at")]
    if not all(isinstance(text, str) for text in texts) or texts[:2] != [ALGORITHM, identifier]:
        raise Corrupt("bad-signature", f"it is no {ALGORITHM} signature by `{identifier}`")
    if len(_decode(document["signature"])) != 64:
        raise Corrupt("bad-signature", "`signature` is not 64 bytes in base64")
    return document


def verifies(keys: Keys, identifier: str, message: bytes, signature: str) -> bool:
    """Whether `signature`, in base64, is that of `message` by the key `identifier` of `keys`."""
    key = _public(keys.keys[identifier])
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(_decode(signature), message)
    except InvalidSignature:
        return False
    return True


def key_id(public: bytes) -> str:
    """The name of a public key of 32 bytes."""
    return digests.digest(public)[:32]


def _public_bytes(block: bytes, path: str | os.PathLike[str]) -> bytes:
    data = _decode(b"".join(block.split()).decode("ascii"))
    if len(data) != len(_PREFIX) + 32 or not data.startswith(_PREFIX):
        raise Invalid(f"`{path}` holds a key that is not ed25519", "`ocad registry keygen` makes one")
    return data[len(_PREFIX) :]


def _decode(text: str) -> bytes:
    """Standard base64 with padding, in its one canonical form; nothing for any other text."""
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
    return data if base64.b64encode(data).decode("ascii") == text else b""


def secret_key(path: Path) -> Ed25519PrivateKey:
    """The secret key in the PEM file `path`; raises `Invalid` for another file."""
    kind = _ed25519()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path, "the secret key"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, kind):
        raise Invalid(f"`{path}` is no secret ed25519 key without a password", "`ocad registry keygen` makes one")
    return key


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(KEYS_LIMIT + 1)
    except OSError as error:
        raise Invalid(f"{what} `{path}` cannot be read ({error.strerror})", "give another path") from None
    if len(data) > KEYS_LIMIT:
        raise Invalid(f"`{path}` is larger than {KEYS_LIMIT} bytes", "give a PEM file")
    return data


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes_raw()


def _public(raw: bytes) -> Ed25519PublicKey:
    _ed25519()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(raw)


def _ed25519() -> type[Ed25519PrivateKey]:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise StorageFailed(
            "signatures need the package `cryptography`", "`pip install 'ocad-registry[sign]'`", code="no-cryptography"
        ) from None
    return Ed25519PrivateKey
