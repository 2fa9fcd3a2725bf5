"""Archives: the same bytes for the same version, verified whole before anything is visible, and hostile ones refused."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.registry_case import network

from ocad_registry import Artifact, Corrupt, Invalid, Registry, RegistryError, VersionExists

from .conftest import DraftMaker, Publisher

Edit = Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]


def test_the_same_version_gives_the_same_bytes_and_comes_back_whole(
    registry: Registry, publish: Publisher, target: Registry, tmp_path: Path
) -> None:
    version = publish(name="m")
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    assert registry.export("m", first) == first.stat().st_size
    imported = target.import_archive(first)
    assert (imported.ref, imported.copied, imported.files) == ("m@1.0.0", True, 1)
    assert target.resolve("m@1.0.0").metadata_sha256 == version.metadata_sha256
    assert target.verify() == []
    target.export("m@1.0.0", second)
    assert first.read_bytes() == second.read_bytes()
    assert not target.import_archive(second).copied
    with tarfile.open(first) as tar:
        names = tar.getnames()
    assert names == ["m/1.0.0/metadata.json", "m/1.0.0/metadata.sha256", "m/1.0.0/weights.bin"]


def test_long_names_and_many_files(
    registry: Registry, make_draft: DraftMaker, target: Registry, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{'x' * 120}{number}.bin" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    registry.publish(make_draft("n" * 128), [Artifact(path, "report") for path in paths], "1.0.0-" + "a" * 50)
    registry.export(f"{'n' * 128}@1.0.0-{'a' * 50}", tmp_path / "long.tar")
    assert target.import_archive(tmp_path / "long.tar").files == 20
    assert target.verify() == []


def test_an_archive_is_not_overwritten_nor_put_over_another_version(
    registry: Registry, publish: Publisher, target: Registry, tmp_path: Path, make_draft: DraftMaker
) -> None:
    publish(name="m")
    registry.export("m", tmp_path / "m.tar")
    for place in (tmp_path / "m.tar", tmp_path / "missing" / "m.tar"):
        with pytest.raises(Invalid):
            registry.export("m", place)
    with pytest.raises(Invalid):
        target.import_archive(tmp_path / "none.tar")
    target.publish(make_draft("m"), [])
    with pytest.raises(VersionExists):
        target.import_archive(tmp_path / "m.tar")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["m.tar", "weights.bin"]


def rename(to: str) -> Edit:
    return lambda members: setattr(members[2][0], "name", to)


def kind(of: bytes, link: str = "") -> Edit:
    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = members[2][0]
        member.type, member.linkname, member.size = of, link, 0
        members[2] = member, b""

    return edit


def insert(name: str, position: int, data: bytes = b"") -> Edit:
    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        members.insert(position, (member, data))

    return edit


def flip(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    member, data = members[2]
    members[2] = member, b"\xff" + data[1:]


def shorten(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    member, data = members[2]
    member.size -= 1
    members[2] = member, data[:-1]


def claim(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """A pax header that claims a terabyte for the payload."""
    members[2][0].pax_headers = {"size": str(2**40)}


def sparse(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40)}
    members[2][0].pax_headers = headers


def renew(members: list[tuple[tarfile.TarInfo, bytes]], **changes: Any) -> None:
    """Other metadata, with its digest made right again."""
    data = json.dumps(json.loads(members[0][1]) | changes).encode()
    line = f"{hashlib.sha256(data).hexdigest()}  metadata.json\n".encode()
    for place, content in enumerate((data, line)):
        members[place][0].size = len(content)
        members[place] = members[place][0], content


def bomb(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Metadata that lists a terabyte, in an archive of a few kilobytes."""
    [listed] = json.loads(members[0][1])["files"]
    renew(members, files=[listed | {"size": 2**40}])


HOSTILE: dict[str, tuple[Edit, str]] = {
    "absolute": (rename("/etc/passwd"), "bad-archive"),
    "upwards": (rename("m/1.0.0/../../escape"), "bad-archive"),
    "elsewhere": (rename("m/1.1.0/weights.bin"), "bad-archive"),
    "symlink": (kind(tarfile.SYMTYPE, "/etc/passwd"), "bad-archive"),
    "hard link": (kind(tarfile.LNKTYPE, "m/1.0.0/metadata.json"), "bad-archive"),
    "device": (kind(tarfile.CHRTYPE), "bad-archive"),
    "fifo": (kind(tarfile.FIFOTYPE), "bad-archive"),
    "folder": (kind(tarfile.DIRTYPE), "bad-archive"),
    "duplicate": (insert("m/1.0.0/weights.bin", 3, b"second"), "bad-archive"),
    "more": (insert("m/1.0.0/more.bin", 3, b"more"), "bad-archive"),
    "more, first": (insert("m/1.0.0/more.bin", 0, b"more"), "bad-archive"),
    "another model": (insert("other/1.0.0/metadata.json", 3, b"{}"), "bad-archive"),
    "bad signature": (insert(f"m/signatures/1.0.0/{'0' * 32}.json", 3, b"{}"), "bad-signature"),
    "less": (lambda members: members.pop(), "bad-archive"),
    "metadata twice": (lambda members: members.insert(1, members[0]), "bad-archive"),
    "changed": (flip, "digest"),
    "shorter": (shorten, "size"),
    "declared size": (claim, "size"),
    "listed size": (bomb, "bad-archive"),
    "sparse": (sparse, "bad-archive"),
}


def write(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(
    name: str, registry: Registry, publish: Publisher, target: Registry, tmp_path: Path
) -> None:
    publish(name="m")
    registry.export("m", tmp_path / "m.tar")
    with tarfile.open(tmp_path / "m.tar") as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]
    edit, code = HOSTILE[name]
    edit(members)
    write(tmp_path / "hostile.tar", members)
    before = {path for path in tmp_path.rglob("*") if "other" not in path.parts}
    with pytest.raises(Corrupt) as caught:
        target.import_archive(tmp_path / "hostile.tar")
    assert caught.value.code == code, caught.value
    assert target.list() == []
    assert {path for path in tmp_path.rglob("*") if "other" not in path.parts} == before
    target.collect_garbage()
    assert [path for path in Path(target.root).rglob("*") if path.is_file() and path.name != "registry.json"] == []


@pytest.mark.parametrize("data", [b"", b"\0" * 1024, b"no tar at all" * 100, bytes(range(256)) * 8])
def test_what_is_no_tar_is_refused(target: Registry, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "no.tar").write_bytes(data)
    with pytest.raises(Corrupt) as caught:
        target.import_archive(tmp_path / "no.tar")
    assert caught.value.code == "bad-archive"
    assert not Path(target.root).exists()


def test_compressed_archives_are_refused(
    registry: Registry, publish: Publisher, target: Registry, tmp_path: Path
) -> None:
    publish(name="m")
    registry.export("m", tmp_path / "m.tar")
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "m.tar")
    with pytest.raises(Corrupt, match="is refused"):
        target.import_archive(tmp_path / "m.tar.gz")


def test_a_header_of_any_length_is_not_read_into_memory(target: Registry, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**33 - 1
    (tmp_path / "bomb.tar").write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    with pytest.raises(Corrupt, match="a header is too large"):
        target.import_archive(tmp_path / "bomb.tar")


def test_weights_outside_the_archive_are_refused(
    registry: Registry, publish: Publisher, target: Registry, tmp_path: Path
) -> None:
    """An ONNX whose external data is not among the files, as no publisher would write it."""
    place = publish(name="m").path
    archive = tmp_path / "m.tar"
    registry.export("m", archive)
    with tarfile.open(archive) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]  # type: ignore[union-attr]

    onnx = network("elsewhere.data")
    digest = hashlib.sha256(onnx).hexdigest()
    listed = {"path": "model.onnx", "role": "onnx", "size": len(onnx), "sha256": digest, "media_type": ""}
    parity = {"reference": "torch", "samples": 1, "max_scaled_diff": 0, "tolerance": 1, "passed": True}
    renew(members, files=[listed], parity=parity)
    members[2][0].name, members[2][0].size = "m/1.0.0/model.onnx", len(onnx)
    members[2] = members[2][0], onnx
    write(tmp_path / "outside.tar", members)
    with pytest.raises(Corrupt) as caught:
        target.import_archive(tmp_path / "outside.tar")
    assert caught.value.code == "external-data"
    assert target.list() == []
    assert place.is_dir()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from ocad_registry import Draft, PluginReference

    folder = tmp_path_factory.mktemp("archive")
    (folder / "weights.bin").write_bytes(b"w" * 700)
    plugin = PluginReference(name="tcn", version="0.1.0", package="ocad")
    registry = Registry(folder / "models")
    registry.publish(Draft(name="m", plugin=plugin, task="forecast"), [Artifact(folder / "weights.bin", "weights")])
    registry.export("m@1.0.0", folder / "m.tar")
    return (folder / "m.tar").read_bytes()


@given(st.data())
def test_a_mutated_archive_is_refused_or_says_the_same(whole: bytes, data: st.DataObject) -> None:
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        choice = data.draw(st.sampled_from(["byte", "cut", "repeat", "drop", "field"]))
        place = data.draw(st.integers(0, max(0, len(mutated) - 1)))
        if choice == "byte" and mutated:
            mutated[place] = data.draw(st.integers(0, 255))
        elif choice == "cut":
            del mutated[place:]
        elif choice == "repeat":
            block = place // 512 * 512
            mutated[block:block] = mutated[block : block + 512 * data.draw(st.integers(1, 4))]
        elif choice == "drop":
            block = place // 512 * 512
            del mutated[block : block + 512 * data.draw(st.integers(1, 3))]
        elif len(mutated) >= 512:
            resign(mutated, place // 512 * 512, data)
    with tempfile.TemporaryDirectory() as folder:
        archive, target = Path(folder, "m.tar"), Registry(Path(folder, "models"))
        archive.write_bytes(mutated)
        try:
            target.import_archive(archive)
        except RegistryError:
            assert target.list() == []
        else:
            target.export("m@1.0.0", Path(folder, "again.tar"))
            assert Path(folder, "again.tar").read_bytes() == whole
            assert target.verify() == []


def resign(mutated: bytearray, block: int, data: st.DataObject) -> None:
    """Changes a field of what may be a header and makes its checksum right again, so that the change gets through."""
    offset, length = data.draw(st.sampled_from([(0, 100), (124, 12), (156, 1), (157, 100), (345, 155)]))
    field = data.draw(st.binary(min_size=1, max_size=length))
    mutated[block + offset : block + offset + len(field)] = field
    mutated[block + 148 : block + 156] = b" " * 8
    mutated[block + 148 : block + 156] = b"%06o\0 " % sum(mutated[block : block + 512])
