"""The read cache: downloaded once, checked, kept within its size, and never taken away from who uses it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocad_registry import Corrupt, Invalid, StorageFailed
from ocad_registry.cache import DEFAULT_SIZE, Cache, cache_folder
from ocad_registry.storage import Stored


def owner(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def payload(data: bytes, path: str = "writer/weights.bin") -> Stored:
    return Stored(path, len(data), hashlib.sha256(data).hexdigest())


class Source:
    """What is downloaded from, and how often."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.downloads = 0

    def __call__(self, target: Path) -> None:
        self.downloads += 1
        target.write_bytes(self.data)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 1000)


def other_process(root: Path, *names: str) -> subprocess.Popen[str]:
    """Reads 400-byte files of versions through the cache and holds them until its stdin ends."""
    code = (
        "import sys; from pathlib import Path; from tests.registry.test_cache import *\n"
        "for name in sys.argv[2:]:\n"
        "    print(Cache(Path(sys.argv[1]), 1000).file(owner(name), payload(bytes(400)), '', Source(bytes(400))), flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(root), *names]
    started = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    for name in names:
        assert owner(name) in started.stdout.readline()
    return started


def fill(root: Path, *names: str) -> None:
    """Another process reads versions, one after the other, and ends."""
    other_process(root, *names).communicate("", timeout=600)


def held(cache: Cache) -> set[str]:
    return {folder.name for folder in cache.root.glob("versions/*/*") if folder.is_dir()}


def test_a_file_is_downloaded_once_and_lies_under_its_own_path(cache: Cache) -> None:
    source = Source(b"bytes")
    first = cache.file(owner("a"), payload(b"bytes"), "it", source)
    assert first == cache.root / "versions" / owner("a")[:2] / owner("a") / "writer" / "weights.bin"
    assert first.read_bytes() == b"bytes"
    assert first.stat().st_mode & 0o777 == 0o444
    assert Cache(cache.root).file(owner("a"), payload(b"bytes"), "it", source) == first
    assert source.downloads == 1


@pytest.mark.parametrize(("data", "kind"), [(b"byte", "size"), (b"bytez", "digest")])
def test_what_is_not_the_payload_is_not_kept(cache: Cache, data: bytes, kind: str) -> None:
    with pytest.raises(Corrupt, match=r"of `m@1\.0\.0`") as caught:
        cache.file(owner("a"), payload(b"bytes"), "`weights.bin` of `m@1.0.0`", Source(data))
    assert caught.value.code == kind
    assert [path for path in cache.root.rglob("*") if path.is_file() and path.name != ".lock"] == []


@pytest.mark.parametrize("same_size", [True, False])
def test_a_damaged_copy_is_downloaded_again(cache: Cache, same_size: bool) -> None:
    source = Source(b"bytes")
    path = cache.file(owner("a"), payload(b"bytes"), "it", source)
    path.chmod(0o644)
    path.write_bytes(b"wrong" if same_size else b"")
    assert cache.file(owner("a"), payload(b"bytes"), "it", source).read_bytes() == b"bytes"
    assert source.downloads == 2


def test_a_link_in_the_cache_is_replaced(cache: Cache, tmp_path: Path) -> None:
    source = Source(b"bytes")
    path = cache.file(owner("a"), payload(b"bytes"), "it", source)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(b"bytes")
    path.symlink_to(tmp_path / "elsewhere")
    assert not cache.file(owner("a"), payload(b"bytes"), "it", source).is_symlink()


def test_what_was_not_used_for_longest_makes_room(cache: Cache) -> None:
    fill(cache.root, "a", "b", "a")
    for age, name in enumerate(("a", "b")):
        os.utime(cache.folder(owner(name)), (1e9 - age, 1e9 - age))
    fill(cache.root, "c")
    assert held(cache) == {owner("a"), owner("c")}


def test_reading_counts_as_use(cache: Cache) -> None:
    fill(cache.root, "a", "b")
    for name in ("a", "b"):
        os.utime(cache.folder(owner(name)), (1e9, 1e9))
    fill(cache.root, "a")
    fill(cache.root, "c")
    assert held(cache) == {owner("a"), owner("c")}


def test_what_another_process_uses_is_not_taken_away(cache: Cache) -> None:
    reader = other_process(cache.root, "a")
    os.utime(cache.folder(owner("a")), (1e9, 1e9))
    fill(cache.root, "b")
    fill(cache.root, "c")
    assert held(cache) == {owner("a"), owner("c")}
    reader.communicate("", timeout=600)
    fill(cache.root, "d")
    assert owner("a") not in held(cache)


def test_an_open_file_survives_its_removal(cache: Cache) -> None:
    source = Source(b"bytes")
    path = cache.file(owner("a"), payload(b"bytes"), "it", source)
    with path.open("rb") as stream:
        subprocess.run(["rm", "-rf", str(cache.root)], check=True)
        assert cache.file(owner("a"), payload(b"bytes"), "it", source).read_bytes() == b"bytes"
        assert stream.read() == b"bytes"
    assert source.downloads == 2


def test_more_than_the_limit_is_still_readable(cache: Cache) -> None:
    data = bytes(5000)
    assert cache.file(owner("a"), payload(data), "it", Source(data)).stat().st_size == 5000


def test_place_and_size_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCAD_CACHE", raising=False)
    monkeypatch.delenv("OCAD_CACHE_SIZE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ocad"
    assert Cache().limit == DEFAULT_SIZE == 10 * 1024**3
    monkeypatch.setenv("OCAD_CACHE", str(tmp_path / "c"))
    assert Cache().root == tmp_path / "c"
    for text, size in {"0": 0, "1500": 1500, "2k": 2048, "500M": 500 * 1024**2, "1.5 GiB": 3 * 512 * 1024**2}.items():
        monkeypatch.setenv("OCAD_CACHE_SIZE", text)
        assert Cache().limit == size
    monkeypatch.setenv("OCAD_CACHE_SIZE", "much")
    with pytest.raises(Invalid, match=r"`OCAD_CACHE_SIZE=much` is no size: give bytes"):
        Cache()


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    attempt: Callable[[], Path] = lambda: Cache(tmp_path / "file" / "cache").file(  # noqa: E731
        owner("a"), payload(b"x"), "it", Source(b"x")
    )
    with pytest.raises(
        StorageFailed, match=r"the read cache `.*` failed: not a directory: .* set `OCAD_CACHE`"
    ) as caught:
        attempt()
    assert caught.value.code == "cache"
