"""The golden registry of signatures (FORMAT.md §12)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.golden.registry_case import Case, case, outcome, text


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


def signed_entry(c: Case, alias: str, number: int, target: str | None, key: Key, /, **changes: Any) -> None:
    """A good signed entry of `alias` after the one below it, or one with other fields; `kind` is `unset` without target."""
    name, _, label = alias.partition("@")
    folder = c.root / name / "aliases" / label
    below = sorted(folder.glob("*.json"))[-1:] if folder.is_dir() else []
    previous = hashlib.sha256(below[0].read_bytes()).hexdigest() if below else None
    fields: dict[str, Any] = {"kind": "promote" if target else "unset", "by": "ops@example", "reason": "Größe\n2"}
    fields |= {"moved_at": "2026-02-01T08:00:00.000000Z", "forced": False, "number": number, "previous": previous}
    fields |= {field: changes.pop(field) for field in list(changes) if field in fields}
    version, sha256 = (target.partition("@")[2], c.digests[target]) if target else ("none", "none")
    texts = [hashlib.sha256(fields[field].encode()).hexdigest() for field in ("moved_at", "by", "reason")]
    lines = ["ocad alias entry", changes.pop("of", alias), str(fields["number"]), fields["previous"] or "none"]
    lines += [fields["kind"], version, sha256, *texts, "true" if fields["forced"] else "false"]
    proof = {"algorithm": "ed25519", "key_id": key.id, "signature": key.sign("".join(f"{x}\n" for x in lines).encode())}
    c.entry(alias, number, target, **{**fields, "signature": proof} | changes)


def seen(c: Case, alias: str, number: int, entry: int | None = None) -> None:
    """What a reader accepted before: entry `number`, with the bytes of `entry` (others, where it is None)."""
    name, _, label = alias.partition("@")
    sha256 = "0" * 64
    if entry is not None:
        sha256 = hashlib.sha256((c.root / name / "aliases" / label / f"{entry:06d}.json").read_bytes()).hexdigest()
    c.expected.setdefault("seen", {})[alias] = {"number": number, "sha256": sha256}


@case
def signed_aliases(c: Case) -> None:
    """Where aliases must be signed, the newest entry decides alone: signed, under its number, after the one below it, and
    leading on from what was accepted before."""
    c.beside("keys.pem", TRUSTED.pem + SECOND.pem)
    versions = ("m@1.0.0", "m@1.1.0")
    for day, ref in enumerate(versions, 1):
        c.version(ref, day)
        signature(c, ref, TRUSTED)
    old, new = versions
    answers: dict[str, str] = {}

    def row(alias: str, answer: str, *keys: Key, **last: Any) -> str:
        for number, key in enumerate(keys[:-1], 1):
            signed_entry(c, f"m@{alias}", number, old, key)
        signed_entry(c, f"m@{alias}", len(keys), last.pop("target", new), keys[-1], **last)
        answers[f"m@{alias}"] = answer
        return f"m@{alias}"

    row("one", "1.1.0", TRUSTED)
    row("many", "1.1.0", TRUSTED, STRANGER, SECOND, note="an unknown field")
    row("stranger", "!unsigned", TRUSTED, STRANGER)
    row("of-another", "!bad-signature", TRUSTED, TRUSTED, of="m@one")
    row("numbered", "!bad-signature", TRUSTED, TRUSTED, number=1)
    row("severed", "!bad-signature", TRUSTED, TRUSTED, previous=None)
    row("changed", "!bad-signature", TRUSTED, TRUSTED, metadata_sha256=c.digests[old])
    row("unset", "!not-found", TRUSTED, TRUSTED, target=None)
    row("no-proof", "!bad-signature", TRUSTED, TRUSTED, signature="none")
    row("odd-proof", "!bad-signature", TRUSTED, signature={"algorithm": "ed448", "key_id": TRUSTED.id, "signature": ""})
    seen(c, row("known", "1.1.0", TRUSTED, TRUSTED, TRUSTED), 1, 1)
    seen(c, row("same", "1.1.0", TRUSTED, TRUSTED), 2, 2)
    seen(c, row("removed", "!stale-alias", TRUSTED), 2)
    seen(c, row("forked", "!stale-alias", TRUSTED, TRUSTED, TRUSTED), 2)
    seen(c, row("rewritten", "!stale-alias", TRUSTED, TRUSTED), 2)
    c.entry("m@plain", 1, new)
    answers["m@plain"] = "!unsigned"
    c.entry("m@later", 1, old)
    signed_entry(c, "m@later", 2, new, TRUSTED)
    answers["m@later"] = "1.1.0"
    signed_entry(c, "m@junk", 1, new, TRUSTED)
    c.write("m/aliases/junk/000002.json", b"{")
    answers["m@junk"] = "!bad-alias-entry"
    seen(c, "g@production", 3)
    answers["g"] = "!stale-alias"
    answers["m"] = "!not-found"
    c.version("t@1.0.0", 1)
    c.version("t@1.1.0", 2)
    for ref in ("t@1.0.0", "t@1.1.0"):
        signature(c, ref, TRUSTED)
    signed_entry(c, "t@production", 1, "t@1.0.0", TRUSTED)
    signed_entry(c, "t@production", 2, "t@1.1.0", TRUSTED)
    c.write("t/deleted/1.1.0.json", b"{}")
    answers["t"] = answers["t@production"] = "!not-found"
    c.expected["signed_aliases"] = {reference: outcome(answer) for reference, answer in answers.items()}
    _plainly(c)


@case
def onnx_tags(c: Case) -> None:
    """A tag above 2^32 - 1, of which a runtime reads the low 32 bits: here a second graph."""
    from tests.golden.registry_case import network, network_files

    c.version("m@1.0.0", 1, network_files(network() + bytes([0xBA, 0x80, 0x80, 0x80, 0x10, 0x00])))
    c.lists("m@1.0.0")
    c.damaged("m@1.0.0", "bad-onnx")
    c.resolves(m="1.0.0")


def _plainly(c: Case) -> None:
    """What readers say of `signed_aliases` that do not ask for signatures."""
    pointing = sorted(reference.partition("@")[2] for reference in c.expected["signed_aliases"] if "@" in reference)
    plain = [alias for alias in pointing if alias not in ("unset", "junk", "production")]
    c.lists("m@1.1.0", *plain)
    c.lists("t@1.0.0", "production")
    c.lists("m@1.0.0")
    c.expected["list"].sort(key=lambda line: {"m@1.1.0": 0, "m@1.0.0": 1, "t@1.0.0": 2}[line["ref"]])
    c.finds("m@changed", "error", "alias-digest")
    c.finds("m@junk", "error", "bad-alias-entry")
    c.resolves(m="1.1.0", t="1.0.0")


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
