"""The file of the query index: shared, removed, broken and killed at any moment, and never missed."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ocad_registry import Registry, coherence
from ocad_registry.index import index_file
from ocad_registry.storage import Storage
from ocad_registry.versions import Metadata, read_metadata

from .conftest import DraftMaker, Publisher
from .reading import entries

READ = "import sys, ocad_registry as o; print(*(e.ref for e in o.Registry(sys.argv[1]).query('passed = true')))"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def many(registry: Registry, make_draft: DraftMaker, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The references of 300 versions in two models, newest first."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # nothing here has to survive a power cut
        refs = [registry.publish(make_draft(name), []).ref for _ in range(150) for name in ("a", "b")]
    return refs[::-1]


def read(root: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", READ, root], stdout=subprocess.PIPE, text=True)


def integrity(root: str) -> str:
    connection = sqlite3.connect(index_file(root))
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def test_processes_that_build_it_at_once(registry: Registry, many: list[str]) -> None:
    readers = [read(registry.root) for _ in range(5)]
    assert [reader.communicate(timeout=600)[0].split() for reader in readers] == [many] * 5
    assert integrity(registry.root) == "ok"
    assert len(list(index_file(registry.root).parent.iterdir())) == 1


def test_a_builder_that_is_killed_leaves_nothing_wrong(registry: Registry, many: list[str]) -> None:
    chance, begun = random.Random(7), time.monotonic()
    read(registry.root).communicate(timeout=600)
    usual = time.monotonic() - begun
    for _ in range(12):
        index_file(registry.root).unlink(missing_ok=True)
        builder = read(registry.root)
        with suppress(subprocess.TimeoutExpired):
            builder.communicate(timeout=usual * chance.uniform(0.5, 1))
        builder.kill()
        builder.communicate()
    assert read(registry.root).communicate(timeout=600)[0].split() == many
    assert integrity(registry.root) == "ok"


def test_large_registries_are_read_in_batches(
    registry: Registry, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coherence, "INLINE", 10)
    monkeypatch.setattr(coherence, "BATCH", 70)
    assert [entry.ref for entry in registry.list()] == many
    assert [entry.to_json() for entry in Registry(registry.root).list()] == entries(Path(registry.root))


def test_what_was_read_before_a_failure_is_not_read_again(
    registry: Registry, many: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 200

    def failing(storage: Storage, name: str, version: str) -> Metadata:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return read_metadata(storage, name, version)

    with monkeypatch.context() as patch:
        patch.setattr(coherence, "INLINE", 10)
        patch.setattr(coherence, "BATCH", 50)
        patch.setattr(coherence, "read_metadata", failing)
        with pytest.raises(KeyboardInterrupt):
            registry.list()
        left = 152  # of 300, 150 were kept
        assert len(registry.list()) == 300


def test_removed_while_it_is_open(registry: Registry, publish: Publisher, cache: Path) -> None:
    first = publish().ref
    assert [entry.ref for entry in registry.list()] == [first]
    shutil.rmtree(cache)
    second = publish().ref
    assert [entry.ref for entry in registry.list()] == [second, first]
    assert index_file(registry.root).exists()
    index_file(registry.root).unlink()
    assert [entry.ref for entry in registry.query("passed = true")] == [second, first]


def broken_contents(place: Path) -> dict[str, bytes]:
    whole = place.read_bytes()
    foreign = place.with_name("foreign")
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE version (id INTEGER)")
    connection.commit()
    connection.close()
    return {
        "no database": b"nothing of the kind" * 400,
        "cut off": whole[: len(whole) // 2],
        "overwritten": whole[:4096] + bytes(len(whole) - 4096),
        "foreign": foreign.read_bytes(),
        "another schema": whole[:60] + (99).to_bytes(4, "big") + whole[64:],
        "empty": b"",
    }


@pytest.mark.parametrize("kind", ["no database", "cut off", "overwritten", "foreign", "another schema", "empty"])
def test_a_file_that_is_broken_is_replaced(registry: Registry, publish: Publisher, kind: str) -> None:
    refs = [publish().ref for _ in range(3)][::-1]
    assert len(registry.list()) == 3
    place = index_file(registry.root)
    place.write_bytes(broken_contents(place)[kind])
    for reader in (Registry(registry.root), registry):
        assert [entry.ref for entry in reader.list()] == refs
        assert [entry.ref for entry in reader.query("metrics.skill > 0")] == refs
    assert integrity(registry.root) == "ok"


def damaged(whole: bytes, seed: int) -> bytes:
    """`whole` with bits turned, bytes overwritten, pages swapped, cleared or cut off."""
    chance, data, pages = random.Random(seed), bytearray(whole), len(whole) // 4096
    place, page, other = chance.randrange(len(data)), 4096 * chance.randrange(pages), 4096 * chance.randrange(pages)
    match seed % 5:
        case 0:
            data[place] ^= 1 << chance.randrange(8)
        case 1:
            data[place : place + 64] = chance.randbytes(len(data[place : place + 64]))
        case 2:
            data[page : page + 4096], data[other : other + 4096] = data[other : other + 4096], data[page : page + 4096]
        case 3:
            data[page : page + 4096] = bytes(4096)
        case _:
            del data[place:]
    return bytes(data)


def test_what_somebody_else_wrote_into_the_file_is_not_believed(registry: Registry, publish: Publisher) -> None:
    """Wherever the damage lies, and whatever sqlite makes of it: every answer is that of a new index."""
    for number in range(12):
        publish(metrics={"skill": number / 12}, params={"rate": number}, description="d" * number)

    def answers(reader: Registry) -> list[Any]:
        asked = ("metrics.skill > 0.3", "params.rate = 7", "description like '%dd%'", "passed = true")
        found: list[Any] = [[entry.ref for entry in reader.query(text)] for text in asked]
        return [*found, [entry.to_json() for entry in reader.list()], reader.describe("tcn-udp_echo@1.5.0")]

    expected = answers(registry)
    place = index_file(registry.root)
    whole = place.read_bytes()
    for seed in range(60):
        place.write_bytes(damaged(whole, seed))
        assert answers(Registry(registry.root)) == expected, seed
    place.write_bytes(whole)  # an older one that was put back, whole
    publish()
    assert len(registry.list()) == 13


def test_a_row_that_is_not_what_was_written_is_read_anew(registry: Registry, publish: Publisher) -> None:
    """As where the disk, and nobody's program, has changed it: the file's times tell nothing."""
    ref = publish(description="true").ref
    before = [entry.to_json() for entry in registry.list()]
    for change in ("UPDATE version SET task = 'other'", "UPDATE document SET json = replace(json, 'true', 'fool')"):
        registry.describe(ref)
        place = index_file(registry.root)
        marked = place.stat()
        connection = sqlite3.connect(place)
        connection.execute(change)
        connection.commit()
        connection.close()
        os.utime(place, ns=(marked.st_atime_ns, marked.st_mtime_ns))
        assert [entry.to_json() for entry in Registry(registry.root).list()] == before
        assert Registry(registry.root).describe(ref)["description"] == "true"


@pytest.mark.parametrize("obstacle", ["a file in the way", "a folder in its place", "no home"])
def test_where_no_file_can_be_kept_the_answer_is_the_same(
    registry: Registry,
    publish: Publisher,
    cache: Path,
    obstacle: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refs = [publish().ref for _ in range(2)][::-1]
    if obstacle == "a file in the way":
        cache.write_text("no folder")
    elif obstacle == "a folder in its place":
        index_file(registry.root).mkdir(parents=True)
    else:
        monkeypatch.setattr(Path, "home", classmethod(no_home))
        monkeypatch.delenv("OCAD_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert [entry.ref for entry in registry.list()] == refs
    refs.insert(0, publish().ref)
    assert [entry.ref for entry in registry.query("params.k is null")] == refs
    assert [record.getMessage()[:22] for record in caplog.records] == ["no query index is kept"], "told once"


def no_home(_class: type[Path]) -> Path:
    raise RuntimeError("could not determine home directory")


def test_another_process_that_holds_it_for_long(
    registry: Registry, publish: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocad_registry.index.BUSY_SECONDS", 0.05)
    first = publish().ref
    assert len(registry.list()) == 1
    holder = sqlite3.connect(index_file(registry.root))
    holder.execute("BEGIN EXCLUSIVE")
    try:
        second = publish().ref
        assert [entry.ref for entry in Registry(registry.root).list()] == [second, first]
    finally:
        holder.close()
    assert [entry.ref for entry in registry.list()] == [second, first]


def test_indexes_that_nobody_opens_any_more_are_removed(registry: Registry, publish: Publisher, cache: Path) -> None:
    (cache / "index").mkdir(parents=True)
    for name, age in (("old", 100), ("young", 50)):
        place = cache / "index" / f"{name}.sqlite"
        place.touch()
        moment = place.stat().st_mtime - age * 24 * 3600
        os.utime(place, (moment, moment))
    publish()
    registry.list()
    assert sorted(place.stem for place in (cache / "index").iterdir()) == sorted(
        ["young", index_file(registry.root).stem]
    )


def test_a_registry_object_survives_a_fork_and_a_pickle(registry: Registry, publish: Publisher) -> None:
    import multiprocessing

    refs = [publish().ref]
    assert [entry.ref for entry in registry.list()] == refs
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert [entry.ref for entry in pool.apply(Registry.list, (registry,))] == refs
        assert [entry.ref for entry in registry.list()] == refs


@pytest.mark.slow
def test_ten_thousand_versions(registry: Registry, make_draft: DraftMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for number in range(10_000):
            registry.publish(make_draft("m", observed=number / 10_000 + 1e-9), [])
    registry.promote("m@1.17.0", "production")
    registry.delete("m@1.9999.0")
    command = [sys.executable, "-m", "ocad", "registry"]
    for _ in range(2):
        done = subprocess.run(
            [*command, "query", "metrics.skill > 0.999", "--json", "--registry", registry.root],
            capture_output=True,
            check=True,
        )
        assert [entry["ref"] for entry in json.loads(done.stdout)] == [f"m@1.{n}.0" for n in range(9998, 9989, -1)]
    page = registry.page(limit=50, offset=9_990)
    assert ([entry.ref for entry in page.entries], page.total) == ([f"m@1.{n}.0" for n in range(8, -1, -1)], 9_999)
    assert registry.resolve("m").version == "1.17.0"
    assert registry.publish(make_draft("m"), []).version == "1.10000.0"


def test_another_registry_under_the_same_url_is_told_apart(make_draft: DraftMaker) -> None:
    import fsspec

    url = "memory://index-of-a-bucket"
    for task in ("forecast", "detect"):
        registry = Registry(url)
        assert [registry.publish(make_draft(task=task), []).version for _ in range(2)] == ["1.0.0", "1.1.0"]
        for _ in range(2):
            assert len(Registry(url).query(f"task = '{task}'")) == 2
            assert [entry.task for entry in registry.list()] == [task, task]
        fsspec.filesystem("memory").rm("/index-of-a-bucket", recursive=True)
    assert Registry(url).list() == []
