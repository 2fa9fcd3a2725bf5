"""The golden registry of signatures (FORMAT.md §12)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.golden.registry_case import Case, case, text


class Key:
    """A secret key that is no secret: its seed is one byte, repeated."""

    def __init__(self, seed: int) -> None:
        self._secret = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        public = self._secret.public_key()
        self.id = hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> str:
        """The signature in base64."""
        return base64.b64encode(self._secret.sign(message)).decode()


TRUSTED, SECOND, STRANGER = Key(1), Key(2), Key(3)


def line(sha256: str) -> bytes:
    """What is signed: the bytes of `metadata.sha256`."""
    return f"{sha256}  metadata.json\n".encode()


def signature(c: Case, ref: str, key: Key, **changes: Any) -> None:
    """A good signature of `ref` by `key`, or one with other fields."""
    name, _, version = ref.partition("@")
    sha256 = changes.get("metadata_sha256", c.digests[ref])
    fields = {"algorithm": "ed25519", "key_id": key.id, "metadata_sha256": sha256, "signature": key.sign(line(sha256))}
    fields |= {"signed_at": "2026-03-01T08:00:00.000000Z"} | changes
    c.write(f"{name}/signatures/{version}/{key.id}.json", text(fields))


@case
def signatures(c: Case) -> None:
    """One good signature by a key of keys.pem is enough; otherwise a bad one by such a key, or none by any of them."""
    c.beside("keys.pem", b"the keys of the release team\n" + TRUSTED.pem + b"\nand the one of last year\n" + SECOND.pem)
    for number in range(14):
        c.version(f"m@1.{number}.0", 14 - number)
        c.lists(f"m@1.{number}.0")
    good, place = c.digests["m@1.0.0"], "m/signatures/{}/" + f"{TRUSTED.id}.json"
    signature(c, "m@1.0.0", TRUSTED, note="an unknown field")
    signature(c, "m@1.2.0", STRANGER)
    signature(c, "m@1.3.0", TRUSTED, metadata_sha256=good)
    signature(c, "m@1.4.0", TRUSTED, signature=TRUSTED.sign(line(good)))
    signature(c, "m@1.5.0", TRUSTED, signature=TRUSTED.sign(line(good)))
    signature(c, "m@1.5.0", SECOND)
    c.write(place.format("1.6.0"), b"{")
    signature(c, "m@1.7.0", TRUSTED, signature=STRANGER.sign(line(c.digests["m@1.7.0"])))
    loose = TRUSTED.sign(line(c.digests["m@1.8.0"]))
    signature(c, "m@1.8.0", TRUSTED, signature=f"{loose[:-3]}{chr(ord(loose[-3]) + 1)}==")
    signature(c, "m@1.9.0", TRUSTED, signature=TRUSTED.sign(c.digests["m@1.9.0"].encode()))
    signature(c, "m@1.10.0", TRUSTED, key_id=SECOND.id)
    signature(c, "m@1.11.0", TRUSTED, algorithm="ed448")
    signature(c, "m@1.12.0", TRUSTED, signed_at=None)
    c.write(place.format("1.13.0").replace(".json", ".txt"), b"no signature at all")
    bad = ("1.3.0", "1.4.0", "1.6.0", "1.7.0", "1.8.0", "1.9.0", "1.10.0", "1.11.0", "1.12.0")
    verdicts = dict.fromkeys(bad, "bad-signature") | dict.fromkeys(("1.1.0", "1.2.0", "1.13.0"), "unsigned")
    c.expected["signed"] = {f"m@1.{number}.0": verdicts.get(f"1.{number}.0") for number in range(14)}
    c.resolves(m="1.13.0")
