"""A hostile writer of a registry's folder against the server: swaps, overwrites, truncations, replays, removals.

`python -m tests.serving.tampering FOLDER STARTS SEED [FLAG]` prints how many starts gave a wrong answer or crashed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.serving import graphs
from tests.serving.registries import publish
from tests.serving.servers import Server, tensor, wait_for

from ocad_registry import Registry
from ocad_registry.signing import create_key

ROW = tensor("x", "FP32", [[1.0, 2.0]])
IDS = tensor("id", "INT64", [[1], [60_000], [119_999]])
GOOD, OLD, EVIL = [3.0, 6.0], [2.0, 4.0], [666.0, 1332.0]


class Target:
    """A signed registry in `folder`: `scale` (production 1.1.0, before it 1.0.0) and `table` with external data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.models, self.key = folder, folder / "models", folder / "key.pem"
        create_key(self.key)
        store = Registry(self.models, key=self.key)
        for factor in (2.0, 3.0):
            publish(self.models, "scale", graphs.scale(factor))
        publish(self.models, "table", graphs.lookup(120_000))
        for reference in ("scale@1.0.0", "scale@1.1.0", "table@1.0.0"):
            store.sign(reference, self.key)
        for reference in ("scale@1.0.0", "scale@1.1.0", "table@1.0.0"):
            store.promote(reference, "production")
        self.evil = publish(folder / "evil", "scale", graphs.scale(666.0)).path / "model.onnx"
        self.kept = folder / "kept"
        shutil.copytree(self.models, self.kept)
        self.rows: list[float] = []

    @property
    def graph(self) -> Path:
        """The graph in production."""
        return self.models / "scale" / "1.1.0" / "model.onnx"

    @property
    def data(self) -> Path:
        """The external data of `table`."""
        return next((self.models / "table" / "1.0.0").glob("*.data"))

    def restore(self) -> None:
        """Puts everything back as it was published."""
        shutil.rmtree(self.models)
        shutil.copytree(self.kept, self.models)


def settled(server: Server) -> None:
    """Waits until the server has looked: it is ready, or says what it refuses."""

    def looked() -> bool:
        answer = server.get("/v2/health/ready")
        return answer.status == 200 or bool(answer.json()["problems"])

    wait_for(looked, "a first look")


@contextmanager
def swapping(target: Target) -> Iterator[None]:
    """The graph in production is another one, and itself again, as fast as this thread can."""
    done = threading.Event()
    good, place = target.kept / target.graph.relative_to(target.models), target.graph

    def swap() -> None:
        while not done.is_set():
            for source in (target.evil, good):
                os.link(source, place.with_name(".next"))
                place.with_name(".next").replace(place)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def overwrite(target: Target) -> None:
    """Other weights under the same names, in place."""
    for path, junk in ((target.data, b"\x3f\x80\x00\x3f"), (target.graph, b"\0")):
        path.chmod(0o644)
        size = path.stat().st_size
        with path.open("r+b") as stream:
            stream.write((junk * (size // len(junk) + 1))[:size])


def truncate(target: Target) -> None:
    """Nothing left of the weights, in place: who has them mapped gets SIGBUS."""
    for path in (target.data, target.graph):
        path.chmod(0o644)
        os.truncate(path, 0)


def replay(target: Target) -> None:
    """The entry of the older version once more, under the next number."""
    folder = target.models / "scale" / "aliases" / "production"
    shutil.copyfile(folder / "000001.json", folder / "000003.json")


def remove_entry(target: Target) -> None:
    """The newest entry is gone."""
    (target.models / "scale" / "aliases" / "production" / "000002.json").unlink()


def tombstone(target: Target) -> None:
    """The version in production is said to be deleted, so that an older entry would decide."""
    folder = target.models / "scale" / "deleted"
    folder.mkdir(exist_ok=True)
    (folder / "1.1.0.json").write_text("{}", encoding="ascii")


def remove_alias(target: Target) -> None:
    """No alias is left, and no newer version: the highest would be the old one."""
    shutil.rmtree(target.models / "scale" / "aliases")
    shutil.rmtree(target.models / "scale" / "1.1.0")


LATER: list[Callable[[Target], None]] = [overwrite, truncate]
EARLIER: list[Callable[[Target], None]] = [overwrite, truncate, replay, remove_entry, tombstone, remove_alias]


def start(target: Target, draw: random.Random, *flags: str) -> str:
    """One start under one attack drawn by `draw`: `right`, `refused`, or what went wrong."""
    attack = draw.choice(["swap", *(["later"] * 2), *(["earlier"] * 3)])
    with Server(target.models, *flags) if attack != "earlier" else _attacked(target, draw, *flags) as server:
        if attack == "swap":
            with swapping(target):
                settled(server)
                return _judge(target, server)
        settled(server)
        before = _judge(target, server)
        if attack == "later" and before == "right":
            draw.choice(LATER)(target)
            return _judge(target, server)
        return before


def _attacked(target: Target, draw: random.Random, *flags: str) -> Server:
    draw.choice(EARLIER)(target)
    return Server(target.models, *flags)


def _judge(target: Target, server: Server) -> str:
    try:
        answers = [server.infer("scale", [ROW]), server.infer("table", [IDS])]
    except OSError:
        return "crash"
    if server.process.poll() is not None:
        return "crash"
    found = [answer.json()["outputs"][0]["data"] for answer in answers if answer.status == 200]
    if any(answer.status == 500 for answer in answers):
        return "failed"
    right = (GOOD, target.rows)
    wrong = [answer for answer in found if answer not in right]
    if wrong:
        return {str(EVIL): "unsigned answer", str(OLD): "older answer"}.get(str(wrong[0]), "altered answer")
    return "right" if len(found) == 2 else "refused"


def attack(folder: Path, starts: int, seed: int, *flags: str) -> Counter[str]:
    """How often each outcome of `start` came in so many starts."""
    target, draw = Target(folder), random.Random(seed)
    keys = ("--keys", f"{target.key}.pub", "--poll", "0.2", *flags)
    with Server(target.models, *keys) as server:
        server.wait_ready()
        target.rows = server.infer("table", [IDS]).json()["outputs"][0]["data"]
    counts: Counter[str] = Counter()
    for _ in range(starts):
        counts[start(target, draw, *keys)] += 1
        target.restore()
    return counts


def main(folder: str, starts: str, seed: str, *flags: str) -> None:
    """Prints the counts."""
    found: dict[str, Any] = dict(
        attack(Path(folder), int(starts), int(seed), *(flags or ("--require-signature=aliases",)))
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
