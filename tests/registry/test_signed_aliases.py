"""Signed aliases and signed versions as Python reads them, against a hostile writer of the folder."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ocad_registry import Corrupt, Keys, NotFound, Refused, Registry, RegistryError, Version
from ocad_registry.signing import create_key

from .conftest import Publisher


class Team:
    """A key, a registry that signs with it, and one that believes nothing else."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.key = root, folder / "key.pem"
        create_key(self.key)
        self.signing = Registry(root, key=self.key)
        self.keys = Keys.read(f"{self.key}.pub")
        self.entries = root / "m" / "aliases" / "production"

    def reader(self, *, aliases: bool = True) -> Registry:
        """A reader that was just started."""
        return Registry(self.root, keys=self.keys, signed_aliases=aliases)


@pytest.fixture
def team(registry: Registry, publish: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """`m` with 1.0.0 and then 1.1.0 in production, all of it signed."""
    monkeypatch.setenv("OCAD_CACHE", str(tmp_path / "cache"))
    made = Team(Path(registry.root), tmp_path)
    for number in ("1.0.0", "1.1.0"):
        publish(number, name="m")
        made.signing.sign(f"m@{number}", made.key)
        made.signing.promote(f"m@{number}", "production")
    return made


def replay(team: Team) -> None:
    shutil.copyfile(team.entries / "000001.json", team.entries / "000003.json")


def remove(team: Team) -> None:
    (team.entries / "000002.json").unlink()


def remove_all(team: Team) -> None:
    shutil.rmtree(team.entries)


def unsigned(team: Team) -> None:
    document = (team.entries / "000001.json").read_text(encoding="utf-8")
    (team.entries / "000003.json").write_text(document.replace('"signature"', '"other"', 1), encoding="utf-8")


def tombstone(team: Team) -> None:
    (team.root / "m" / "deleted").mkdir()
    (team.root / "m" / "deleted" / "1.1.0.json").write_text("{}", encoding="ascii")


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (replay, "bad-signature"),
        (remove, "stale-alias"),
        (remove_all, "stale-alias"),
        (unsigned, "unsigned"),
        (tombstone, "not-found"),
    ],
)
def test_an_older_version_is_not_put_back(team: Team, attack: Callable[[Team], None], code: str) -> None:
    assert team.reader().resolve("m").version == "1.1.0"
    attack(team)
    for reference in ("m", "m@production"):
        with pytest.raises(RegistryError) as caught:
            team.reader().resolve(reference)
        assert caught.value.code == code


def test_moves_go_on_and_verify_says_so(team: Team) -> None:
    assert team.signing.rollback("m", "production").version == "1.0.0"
    assert team.reader().resolve("m").version == "1.0.0"
    assert team.signing.verify(keys=team.keys, signed_aliases=True) == []
    team.signing.unset("m", "production")
    with pytest.raises(NotFound):
        team.reader().resolve("m")
    replay(team)
    unsigned(team)
    assert {one.kind for one in team.signing.verify(keys=team.keys, signed_aliases=True)} >= {"bad-signature"}


def test_a_signed_row_stays_signed(team: Team) -> None:
    with pytest.raises(Refused, match="are signed"):
        Registry(team.root).promote("m@1.0.0", "production")
    unsigned(team)
    with pytest.raises(Refused, match="is not signed"):
        team.signing.promote("m@1.0.0", "production")


def test_only_signed_versions_are_read(team: Team, publish: Publisher) -> None:
    publish("1.2.0", name="m")
    assert team.reader(aliases=False).resolve("m@1.1.0").file("weights").is_file()
    reads: list[Callable[[Version], object]] = [
        lambda version: version.manifest,
        lambda version: version.file("weights"),
        lambda version: version.metadata_sha256,
    ]
    for read in reads:
        with pytest.raises(Corrupt) as caught:
            read(team.reader(aliases=False).resolve("m@1.2.0"))
        assert caught.value.code == "unsigned"


def test_junk_in_place_of_a_signature_does_not_block_signing(team: Team) -> None:
    [place] = (team.root / "m" / "signatures" / "1.0.0").iterdir()
    for junk in (b"", b"{}", b"x" * 100_000):
        place.unlink()
        place.write_bytes(junk)
        team.signing.sign("m@1.0.0", team.key)
        team.reader(aliases=False).resolve("m@1.0.0").file("weights")


def test_what_was_verified_is_what_is_opened(team: Team) -> None:
    """200 loads while the file is swapped, overwritten and truncated: the published bytes, or a refusal."""
    place = team.root / "m" / "1.1.0" / "weights.bin"
    good, draw, done = place.read_bytes(), random.Random(1), threading.Event()
    place.chmod(0o644)

    def tamper() -> None:
        while not done.is_set():
            data = draw.choice([good, good[::-1], b"", good[:100]])
            if draw.random() < 0.5:
                place.write_bytes(data)
            else:
                place.with_name(".next").write_bytes(data)
                place.with_name(".next").replace(place)

    thread = threading.Thread(target=tamper)
    thread.start()
    try:
        outcomes = []
        for _ in range(200):
            try:
                outcomes.append(team.reader().resolve("m").file("weights").read_bytes() == good)
            except Corrupt:
                pass
            finally:
                shutil.rmtree(os.environ["OCAD_CACHE"] + "/versions", ignore_errors=True)
    finally:
        done.set()
        thread.join()
    assert outcomes
    assert all(outcomes)
