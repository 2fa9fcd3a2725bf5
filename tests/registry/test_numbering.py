"""The next version's number: after the highest ever given, whoever gave it, and without a listing for each publish."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocad_registry import Registry, names, numbering, staging_local
from ocad_registry.storage_local import LocalStorage

from .conftest import DraftMaker, Publisher

labels = st.sampled_from(["", "-1", "-a", "-a.b", "-ab", "-a.1", "-10", "-a-", "-A", "-0"])
any_versions = st.builds("{}.{}.{}{}".format, *[st.sampled_from([0, 1, 9, 10, 999_999_999_999_999])] * 3, labels)


def test_other_writers_are_seen(registry: Registry, make_draft: DraftMaker) -> None:
    other = Registry(registry.root)

    def publish(writer: Registry, version: str | None = None) -> str:
        return writer.publish(make_draft(), [], version).version

    assert [publish(registry), publish(registry), publish(other), publish(registry)] == [f"1.{n}.0" for n in range(4)]
    assert [publish(other, "3.0.0"), publish(registry), publish(registry, "5.0.0"), publish(registry)] == [
        *("3.0.0", "3.1.0", "5.0.0", "5.1.0")
    ]
    other.delete("tcn-udp_echo@5.1.0")
    other.collect_garbage(grace=0)
    assert publish(registry) == "5.2.0"
    (Path(registry.root) / "tcn-udp_echo" / "7.0.0").mkdir()
    assert publish(registry) == "7.1.0"
    deleted = Path(registry.root) / "tcn-udp_echo" / "deleted" / "9.0.0.json"
    deleted.write_text("{}")
    assert publish(registry) == "9.1.0"


def test_a_writer_among_its_own_publishes_lists_once(
    registry: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    original = LocalStorage.names

    def counted(storage: LocalStorage, folder: str) -> object:
        listed.append(folder)
        return original(storage, folder)

    monkeypatch.setattr(LocalStorage, "names", counted)
    publish()
    publish()
    listed.clear()
    assert [publish().version for _ in range(5)] == [f"1.{number}.0" for number in range(2, 7)]
    assert "tcn-udp_echo" not in listed


def test_a_writer_that_was_stopped_in_its_turn_holds_nobody_up(
    registry: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging_local, "PATIENCE_S", 0.2)
    publish()
    lock = staging_local.lock_folder(str(Path(registry.root) / "tcn-udp_echo"))
    assert lock is not None
    started = time.monotonic()
    assert publish().version == "1.1.0"
    assert time.monotonic() - started >= 0.2
    os.close(lock)
    monkeypatch.setattr(staging_local, "PATIENCE_S", 60.0)
    assert publish().version == "1.2.0"


def test_a_file_system_that_counts_no_subfolders(
    registry: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As btrfs and overlays, whose folders all have one link: there a publish lists."""
    monkeypatch.setattr(numbering, "LEAST_LINKS", 10**9)
    assert [publish().version for _ in range(3)] == ["1.0.0", "1.1.0", "1.2.0"]


@settings(max_examples=300)
@given(st.lists(any_versions, max_size=6))
def test_ranks_sort_as_versions_do(versions: list[str]) -> None:
    legal = [version for version in versions if names.is_version(version)]
    assert sorted(legal, key=names.version_rank) == sorted(legal, key=names.version_key)
