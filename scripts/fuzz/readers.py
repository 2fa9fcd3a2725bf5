"""What is attacked: readers of bytes that somebody else wrote. Each answers a word for what it made of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from http.client import HTTPMessage
from pathlib import Path
from typing import Any, Protocol

from mutators import CELLS, TAGS, Mutator, bytes_of, json_of, tokens_of

from ocad.catalogue import DataSource
from ocad.detection.remote import NO_ANSWER, _decode
from ocad.errors import OcadError
from ocad.tabular.sources import Log
from ocad.tabular.spec import Features
from ocad.timeseries.frame import read_frame
from ocad_registry import Draft, GateResult, PluginReference, Registry, RegistryError
from ocad_registry.index import index_file
from ocad_registry.onnx_external import BadOnnxError, external_locations

ROOT = Path(__file__).resolve().parents[2]
SEEDS = Path(__file__).parent / "seeds"
GOLDEN = ROOT / "tests" / "golden" / "registry"
SERVER_READER = ROOT / "serving" / "target" / "debug" / "examples" / "registry_verdicts"
NAMED = (OcadError, RegistryError, BadOnnxError)
"""What a reader may raise: all else is a crash."""
BATCH = 50
"""Models of one registry that both readers look at."""


class Reader(Protocol):
    """A target."""

    seeds: list[bytes]
    mutators: tuple[Mutator, ...]

    def read(self, data: bytes) -> str:
        """What became of `data`: `read`, or the name of the refusal. Raises what the reader raises, if it is not `NAMED`."""
        ...

    def close(self) -> list[str]:
        """What is left to be looked at; wrong verdicts, each in a line."""
        ...


class Lines:
    """A log or table in a file of a name that says its form."""

    def __init__(self, folder: Path, name: str, beside: Mapping[str, bytes] | None = None) -> None:
        self.path = folder / name
        self.seeds = [file.read_bytes() for file in sorted(SEEDS.glob(f"*-{name}"))]
        self.mutators: tuple[Mutator, ...] = (bytes_of, tokens_of(CELLS), tokens_of(CELLS))
        for other, data in (beside or {}).items():
            (folder / other).write_bytes(data)

    def read(self, data: bytes) -> str:
        self.path.write_bytes(data)
        try:
            self.rows()
        except NAMED as error:
            return error.code if isinstance(error, OcadError | RegistryError) else "bad"
        return "read"

    def rows(self) -> None:
        """Reads the whole as a click log."""
        self.log(self.path)

    def log(self, path: Path) -> None:
        source = DataSource.model_validate({"name": path.name, "path": path, "kind": "clicks"})
        log = Log(source, path, Features(), max_bad_lines=3)
        for _ in log.tables(log.schema.names):
            pass

    def close(self) -> list[str]:
        return []


class FeatureIndexFile(Lines):
    """`featindex.txt` beside a campaign's log."""

    def rows(self) -> None:
        self.log(self.path.with_name("train.yzx.txt"))


class Series(Lines):
    """A CSV of measurements."""

    def rows(self) -> None:
        read_frame(DataSource.model_validate({"name": "series", "path": self.path}))


class Answer(Lines):
    """What a server answers instead of an inference."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.mutators = (json_of, json_of, bytes_of)

    def rows(self) -> None:
        try:
            _decode(self.path.read_bytes(), HTTPMessage())
        except NO_ANSWER:
            raise OcadError("no answer") from None


class Graph(Lines):
    """The walk through an ONNX file."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self.seeds = [file.read_bytes() for file in sorted(GOLDEN.rglob("*.onnx"))]
        self.mutators = (bytes_of, tokens_of(TAGS), tokens_of(TAGS))

    def rows(self) -> None:
        external_locations(self.path)


class Archive(Lines):
    """The import of an archive that `export` wrote."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        written = folder / "written.tar"
        Registry(GOLDEN / "valid" / "registry").export("tcn-udp_echo@1.0.0", written)
        self.seeds = [written.read_bytes()]
        self.mutators = (bytes_of,)

    def rows(self) -> None:
        target = self.path.with_name("models")
        shutil.rmtree(target, ignore_errors=True)
        Registry(target).import_archive(self.path)
        if errors := [one for one in Registry(target).verify() if one.severity == "error"]:
            raise AssertionError(f"imported and not whole: {errors[0]}")


class IndexFile(Lines):
    """The file of the query index: whatever is in it, the answers are those of reading anew."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self._registry = Registry(folder / "models")
        for number in range(20):
            gate = GateResult(name="g", metric="m", op=">", threshold=0, observed=number - 3, passed=number > 3)
            plugin = PluginReference(name="tcn", version="1", package="ocad")
            values: dict[str, Any] = {
                "metrics": {"m": number - 3},
                "params": {"rate": number},
                "description": "d" * number,
            }
            self._registry.publish(Draft(name="m", plugin=plugin, task="t", gates=[gate], **values), [])
        self._expected = self._answers()
        self.seeds, self.mutators = [index_file(self._registry.root).read_bytes()], (bytes_of,)

    def _answers(self) -> str:
        reader = Registry(self._registry.root)
        asked = ("metrics.m > 2", "params.rate = 7", "description like '%dd%'", "passed = true")
        found = [[one.ref for one in reader.query(text)] for text in asked]
        return json.dumps([found, [one.to_json() for one in reader.list()], reader.describe("m@1.5.0")])

    def rows(self) -> None:
        shutil.copyfile(self.path, index_file(self._registry.root))
        if self._answers() != self._expected:
            raise AssertionError("another answer than without the file")


class BothReaders:
    """Versions or alias entries in a registry, which the server's reader must judge as this one does."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind, self._count = folder, kind, 0
        self._verdicts: dict[str, str | None] = {}
        self._data: dict[str, bytes] = {}
        self._root = self._begin()
        self._wrong: list[str] = []
        golden = GOLDEN / "valid" / "registry" / "tcn-udp_echo"
        self._version = golden / "1.0.0"
        pattern = {"metadata": "*/metadata.json", "alias": "aliases/*/*.json", "onnx": "*/*.onnx"}[kind]
        self.seeds = [file.read_bytes() for file in sorted(golden.glob(pattern))]
        if kind == "onnx":
            self.seeds = [file.read_bytes() for file in sorted(GOLDEN.rglob("*.onnx"))]
        self.mutators: tuple[Mutator, ...] = (
            (bytes_of, tokens_of(TAGS)) if kind == "onnx" else (json_of, json_of, json_of, bytes_of)
        )

    def _begin(self) -> Path:
        root = self._folder / f"models-{self._count}"
        root.mkdir(parents=True)
        (root / "registry.json").write_bytes(b'{"format": 1}\n')
        return root

    def read(self, data: bytes) -> str:
        name = f"m{len(self._data)}"
        place = self._root / name / "1.0.0"
        shutil.copytree(self._version, place)
        metadata = (place / "metadata.json").read_bytes().replace(b'"tcn-udp_echo"', f'"{name}"'.encode(), 1)
        if self._kind == "metadata":
            metadata = data.replace(b'"tcn-udp_echo"', f'"{name}"'.encode(), 1)
        elif self._kind == "onnx":
            document = json.loads(metadata)
            for file in document["files"]:
                if file["role"] == "onnx":
                    file |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    (place / file["path"]).unlink()
                    (place / file["path"]).write_bytes(data)
            metadata = json.dumps(document).encode()
        digest = hashlib.sha256(metadata).hexdigest()
        for file, content in (("metadata.json", metadata), ("metadata.sha256", f"{digest}  metadata.json\n".encode())):
            (place / file).unlink(missing_ok=True)
            (place / file).write_bytes(content)
        target = f"{name}@1.0.0"
        if self._kind == "alias":
            entries = self._root / name / "aliases" / "production"
            entries.mkdir(parents=True)
            known = hashlib.sha256((self._version / "metadata.json").read_bytes()).hexdigest()
            (entries / "000001.json").write_bytes(data.replace(known.encode(), digest.encode()))
            target = f"{name}@production"
        self._data[target] = data
        found: str | None = None
        try:
            version = Registry(self._root).resolve(target)
            if self._kind == "alias":
                found = version.manifest.version
            else:
                version.verify()
        except RegistryError as error:
            found = error.code
        self._verdicts[target] = found
        if len(self._data) == BATCH:
            self._compare()
        return found if found not in (None, "1.0.0") else "read"

    def _compare(self) -> None:
        if SERVER_READER.is_file() and self._verdicts:
            done = subprocess.run(
                [SERVER_READER], input=f"{self._root}\n", capture_output=True, text=True, timeout=300, check=True
            )
            found = json.loads(done.stdout)
            for target, mine in self._verdicts.items():
                other = found.get(target, "not-found") if isinstance(found, dict) else found
                if other != mine:
                    self._wrong.append(
                        f"{self._kind}: {mine} here, {other} in the server: {self._data[target][:2000]!r}"
                    )
        shutil.rmtree(self._root)
        self._count += 1
        self._data, self._verdicts, self._root = {}, {}, self._begin()

    def close(self) -> list[str]:
        self._compare()
        return self._wrong


def readers(folder: Path) -> dict[str, Reader]:
    """Every target by its name, each in a folder of its own below `folder`."""

    def own(name: str) -> Path:
        place = folder / name
        place.mkdir(parents=True)
        return place

    yzx = (SEEDS / "1-train.yzx.txt").read_bytes()
    return {
        "metadata": BothReaders(own("metadata"), "metadata"),
        "alias": BothReaders(own("alias"), "alias"),
        "onnx": BothReaders(own("onnx"), "onnx"),
        "walker": Graph(own("walker"), "model.onnx"),
        "archive": Archive(own("archive"), "version.tar"),
        "index": IndexFile(own("index"), "index.sqlite"),
        "featindex": FeatureIndexFile(own("featindex"), "featindex.txt", {"train.yzx.txt": yzx}),
        "libsvm": Lines(own("libsvm"), "log.libsvm"),
        "csv": Lines(own("csv"), "clicks.csv"),
        "series": Series(own("series"), "series.csv"),
        "answer": Answer(own("answer"), "answer.json"),
    }
