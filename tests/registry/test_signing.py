"""Signatures: who is trusted, what is signed, and that OpenSSL agrees by hand."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from ocad_registry import Corrupt, Invalid, Keys, Registry
from ocad_registry.signing import create_key

from .conftest import Publisher


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_key(tmp_path / "key.pem")
    return tmp_path / "key.pem"


def stored(registry: Registry, key_id: str) -> Path:
    return Path(registry.root) / "m" / "signatures" / "1.0.0" / f"{key_id}.json"


def test_a_signature_lies_beside_the_version_and_names_the_key(
    registry: Registry, publish: Publisher, key: Path
) -> None:
    version = publish(name="m")
    before = {path: path.read_bytes() for path in version.path.iterdir()}
    signed = registry.sign("m", key)
    assert {path: path.read_bytes() for path in version.path.iterdir()} == before
    keys = Keys.read(f"{key}.pub")
    assert list(keys.keys) == [signed.key_id] == [registry.check_signed("m", keys)]
    document = json.loads(stored(registry, signed.key_id).read_text(encoding="utf-8"))
    assert {"ref": "m@1.0.0", **document} == signed.to_json()
    assert registry.verify(keys=keys) == []


@pytest.mark.needs("openssl")
def test_openssl_verifies_it_by_hand(registry: Registry, publish: Publisher, key: Path, tmp_path: Path) -> None:
    version = publish(name="m")
    signed = registry.sign("m", key)
    (tmp_path / "signature.bin").write_bytes(base64.b64decode(signed.signature))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", f"{key}.pub", "-rawin"]
    files = ["-in", str(version.path / "metadata.sha256"), "-sigfile", str(tmp_path / "signature.bin")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "openssl.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(made)], check=True, capture_output=True)
    public = subprocess.run(["openssl", "pkey", "-in", str(made), "-pubout"], check=True, capture_output=True).stdout
    (tmp_path / "both.pem").write_bytes(b"# two keys\n" + Path(f"{key}.pub").read_bytes() + public)
    assert registry.sign("m", made).key_id in Keys.read(tmp_path / "both.pem").keys
    assert len(Keys.read(tmp_path / "both.pem").keys) == 2


def test_changed_metadata_loses_its_signature(registry: Registry, publish: Publisher, key: Path) -> None:
    """Whoever can write the folder can make digests right again, but not the signature."""
    place = publish(name="m").path
    registry.sign("m", key)
    metadata, line = place / "metadata.json", place / "metadata.sha256"
    for file in (metadata, line):
        file.chmod(0o644)
    metadata.write_bytes(metadata.read_bytes().replace(b'"skill": 0.25', b'"skill": 0.95'))
    line.write_bytes(subprocess.run(["sha256sum", metadata.name], cwd=place, capture_output=True, check=True).stdout)
    keys = Keys.read(f"{key}.pub")
    assert registry.verify() == []
    assert [finding.kind for finding in registry.verify(keys=keys)] == ["bad-signature"]
    with pytest.raises(Corrupt, match="of other metadata"):
        registry.sign("m", key)


def test_what_is_damaged_or_deleted_is_not_signed(registry: Registry, publish: Publisher, key: Path) -> None:
    weights = publish(name="m").path / "weights.bin"
    weights.chmod(0o644)
    weights.write_bytes(b"other")
    with pytest.raises(Corrupt):
        registry.sign("m", key)
    assert not (Path(registry.root) / "m" / "signatures").exists()


def test_signatures_travel_with_copies_and_archives(
    registry: Registry, publish: Publisher, key: Path, tmp_path: Path
) -> None:
    publish(name="m")
    keys, copy, imported = Keys.read(f"{key}.pub"), Registry(tmp_path / "copy"), Registry(tmp_path / "imported")
    registry.copy("m@1.0.0", copy)
    registry.sign("m", key)
    assert [finding.kind for finding in copy.verify(keys=keys)] == ["unsigned"]
    [again] = registry.copy("m@1.0.0", copy)
    assert (again.copied, again.signatures) == (False, 1), "what was signed later is copied later"
    copy.export("m@1.0.0", tmp_path / "m.tar")
    assert imported.import_archive(tmp_path / "m.tar").signatures == 1
    assert copy.verify(keys=keys) == imported.verify(keys=keys) == []


def test_signatures_are_collected_with_their_version(registry: Registry, publish: Publisher, key: Path) -> None:
    publish(name="m")
    registry.sign("m", key)
    registry.delete("m@1.0.0")
    paths = [garbage.path for garbage in registry.collect_garbage(grace=0)]
    assert paths == ["m/1.0.0", "m/signatures/1.0.0"]
    assert registry.collect_garbage(grace=0) == []


def test_a_key_is_never_overwritten(key: Path) -> None:
    with pytest.raises(Invalid, match="exists"):
        create_key(key)
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no key\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        bytes(2 * 1024 * 1024),
    ],
)
def test_a_file_of_keys_holds_public_keys_alone(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "keys.pem").write_bytes(data)
    with pytest.raises(Invalid):
        Keys.read(tmp_path / "keys.pem")


def test_a_file_of_keys_with_a_secret_one_is_refused(key: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.pem").write_bytes(Path(f"{key}.pub").read_bytes() + key.read_bytes())
    with pytest.raises(Invalid, match="nothing secret"):
        Keys.read(tmp_path / "keys.pem")
