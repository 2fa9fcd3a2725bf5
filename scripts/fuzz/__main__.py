"""Feeds damaged input to the readers of strangers' bytes: `python scripts/fuzz [--seconds S] [--seed N] [TARGET …]`.

Prints, for each target, how often which refusal came; ends with 1 after a crash, a hang or a wrong verdict, whose input it
keeps in `--keep`. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

from mutators import damaged
from readers import Reader, readers

HANG_S = 20


class HangError(BaseException):
    """A reader that does not come back."""


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise HangError


def main() -> int:
    parser = argparse.ArgumentParser(description="Feeds damaged input to the readers of strangers' bytes.")
    parser.add_argument("targets", nargs="*", help="all of them where none is named")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--count", type=int, default=sys.maxsize, help="at most so many inputs for each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("runs", "fuzz"), help="where inputs that went wrong are kept")
    asked = parser.parse_args()
    logging.disable()
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.environ["OCAD_CACHE"] = f"{folder}/cache"
        os.fsync = lambda _descriptor: None  # type: ignore[assignment]  # nothing here has to survive a power cut
        found = readers(Path(folder))
        unknown = set(asked.targets) - found.keys()
        if unknown:
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(found)}")
        wrong = 0
        for name in asked.targets or found:
            wrong += _attack(name, found[name], asked)
    return 1 if wrong else 0


def _attack(name: str, reader: Reader, asked: argparse.Namespace) -> int:
    """How often `reader` went wrong within the budget."""
    counts: Counter[str] = Counter()
    wrong, begun, number = 0, time.monotonic(), 0
    while number < asked.count and time.monotonic() - begun < asked.seconds:
        chance = random.Random(f"{name} {asked.seed} {number}")
        data = damaged(chance, chance.choice(reader.seeds), reader.mutators)
        signal.alarm(HANG_S)
        try:
            counts[reader.read(data)] += 1
        except (Exception, HangError) as error:
            counts[f"WRONG {type(error).__name__}"] += 1
            wrong += 1
            _keep(asked.keep, name, asked.seed, number, data)
        finally:
            signal.alarm(0)
        number += 1
    for line in reader.close():
        wrong += 1
        print(line, file=sys.stderr)
    print(
        json.dumps(
            {"target": name, "inputs": number, "wrong": wrong, "seconds": round(time.monotonic() - begun, 1), **counts}
        )
    )
    sys.stdout.flush()
    return wrong


def _keep(folder: Path, name: str, seed: int, number: int, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{seed}-{number}"
    place.write_bytes(data)
    print(f"{place}: {traceback.format_exc()}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
