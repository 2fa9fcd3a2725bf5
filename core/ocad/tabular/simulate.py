"""Writes the log of a click world: parquet with every column, or `.yzx` in the layout of an iPinYou campaign."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from ocad.errors import OcadError, UsageError
from ocad.progress import SilentProgress
from ocad.tabular.temporal import hour_of, weekday_of
from ocad.tabular.world import AGES, CATEGORIES, DEVICES, POSITIONS, REGIONS, SITES, Columns, World
from ocad.tabular.yzx import COLUMNS, INDEX_FILE, TEST_FILE, TRAIN_FILE

if TYPE_CHECKING:
    from ocad.catalogue import DataSource
    from ocad.protocols import Progress

TEST_SHARE = 0.2
"""Of a campaign folder: the last rows, which `test.yzx.txt` holds."""
_BANNERS = (("300", "250"), ("728", "90"), ("160", "600"), ("336", "280"), ("468", "60"))
_FLOORS = (0.0, 10.0, 50.0, 100.0)
_FLOOR_NAMES = ("0", "1-10", "11-50", "51-100", "101+")


@dataclass(frozen=True, slots=True)
class SimulatedLog:
    """What was written."""

    path: Path
    rows: int
    seed: int
    click_rate: float
    mean_probability: float


def simulate_clicks(rows: int, out: Path, seed: int, progress: Progress) -> SimulatedLog:
    """Writes a log of `rows` to `out`: `F.parquet`, `F.yzx`, or a folder as `make-ipinyou-data` fills it.

    The same rows and seed give the same bytes. Raises `UsageError` for another suffix or fewer than 100 rows.
    """
    if rows < 100:
        raise UsageError(f"{rows} rows are too few for a click world", "ask for 100 or more with `--rows`")
    if out.suffix not in (".parquet", ".yzx", ""):
        raise UsageError(f"cannot write `{out}`", "give a `.parquet` or `.yzx` file, or a folder for a whole campaign")
    world = World.create(rows, seed)
    clicks, probability = 0, 0.0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack, progress.task(f"simulating {out.name}", rows) as task:
            writer = stack.enter_context(_output(out, world))
            for chunk in world.chunks():
                writer.write(world, chunk)
                clicks += int(chunk["click"].sum())
                probability += float(chunk["true_probability"].sum())
                task.advance(len(chunk["click"]))
    except OSError as error:
        raise OcadError(f"cannot write `{out}` ({error.strerror})", "choose another with `--out`") from None
    return SimulatedLog(out, rows, seed, clicks / rows, probability / rows)


def ensure_simulated(source: DataSource) -> None:
    """Writes the log of a catalogue entry with `simulate`, once; a reader sees the whole file or none."""
    if source.simulate is None or source.path.is_file():
        return
    half = source.path.with_name(f".{os.getpid()}-{source.path.name}")
    simulate_clicks(source.simulate.rows, half, source.simulate.seed, SilentProgress())
    half.replace(source.path)


def log_columns(world: World, chunk: Columns) -> pa.Table:
    """A chunk as the log shows it: features, then `click`, and what only the simulator knows or the click decides."""
    user, item = chunk["user"], chunk["item"]
    return pa.table(
        {
            "timestamp": chunk["timestamp"],
            "user_id": user,
            "age_group": _words(world.users["age"][user], AGES),
            "region": world.users["region"][user],
            "device": _words(chunk["device"], DEVICES),
            "item_id": item,
            "category": _words(world.items["category"][item], CATEGORIES),
            "advertiser": world.items["advertiser"][item],
            "site": _words(chunk["site"], _sites()),
            "position": chunk["position"],
            **{
                name: pa.array(chunk[name], from_pandas=True)
                for name in ("item_age_days", "floor_price", "click", "paid_price", "conversion", "revenue")
            },
            "true_probability": chunk["true_probability"],
        }
    )


class _Output(Protocol):
    """A log on its way to disk; closed when the context ends."""

    def __enter__(self) -> _Output: ...

    def __exit__(self, *_: object) -> None: ...

    def write(self, world: World, chunk: Columns) -> None: ...


def _output(path: Path, world: World) -> _Output:
    return _ParquetOutput(path) if path.suffix == ".parquet" else _YzxOutput(path, world)


class _ParquetOutput:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def __enter__(self) -> _ParquetOutput:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def write(self, world: World, chunk: Columns) -> None:
        table = log_columns(world, chunk)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)


class _YzxOutput:
    """A `.yzx` file, or the three files of a campaign; indexes are handed out column by column, value by value."""

    def __init__(self, path: Path, world: World) -> None:
        self._path, self._single = path, path.suffix == ".yzx"
        self._values = yzx_values(world)
        sizes = [len(values) + 1 for values in self._values.values()]  # each column has an `other`
        self._offsets = dict(zip(self._values, np.cumsum([1, *sizes[:-1]]).tolist(), strict=True))
        self._test_from = world.rows - int(world.rows * TEST_SHARE)
        self._rows = 0
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> _YzxOutput:
        names = [self._path] if self._single else [self._path / TRAIN_FILE, self._path / TEST_FILE]
        if not self._single:
            self._path.mkdir(exist_ok=True)
            (self._path / INDEX_FILE).write_text("".join(self._index_lines()), encoding="utf-8")
        self._files = [name.open("wb") for name in names]
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def write(self, world: World, chunk: Columns) -> None:
        lines = self._lines(world, chunk)
        early = len(lines) if self._single else int(np.clip(self._test_from - self._rows, 0, len(lines)))
        for file, part in zip(self._files, (lines[:early], lines[early:]), strict=False):
            file.write("".join(f"{line}\n" for line in part.to_pylist()).encode())
        self._rows += len(lines)

    def _index_lines(self) -> Iterator[str]:
        yield "truncate\t0\n"
        for name, values in self._values.items():
            for place, value in enumerate(("other", *values)):
                yield f"{COLUMNS[name]}:{value}\t{self._offsets[name] + place}\n"

    def _lines(self, world: World, chunk: Columns) -> pa.Array:
        price = np.maximum(1, np.round(chunk["paid_price"])).astype(np.int64)
        tokens = [pa.array(chunk["click"]).cast(pa.string()), pa.array(price).cast(pa.string())]
        tokens.append(pa.array(["0:1"] * len(price)))
        for name, codes in yzx_codes(world, chunk):
            index = pa.array(codes + 1 + self._offsets[name], mask=codes < 0).cast(pa.string())
            tokens.append(pc.binary_join_element_wise(index, "1", ":"))
        return pc.binary_join_element_wise(*tokens, " ", null_handling="skip")


def yzx_values(world: World) -> dict[str, Sequence[str]]:
    """The values that each of iPinYou's columns can have in `world`, in the order of their codes."""
    users, items = len(world.users["age"]), len(world.items["category"])
    return {
        "weekday": [str(day) for day in range(7)],
        "hour": [f"{hour:02d}" for hour in range(24)],
        "IP": [f"10.{user >> 16}.{user >> 8 & 255}.{user & 255}" for user in range(users)],
        "region": [str(region) for region in range(REGIONS)],
        "city": [str(city) for city in range(3 * REGIONS)],
        "adexchange": [str(exchange) for exchange in range(1, 5)],
        "domain": _sites(),
        "slotid": [f"slot-{position}" for position in range(1, POSITIONS + 1)],
        "slotwidth": [width for width, _ in _BANNERS],
        "slotheight": [height for _, height in _BANNERS],
        "slotvisibility": ["FirstView", "SecondView"],
        "slotformat": ["0", "1"],
        "creative": [f"creative-{item}" for item in range(items)],
        "advertiser": [str(number) for number in range(int(world.items["advertiser"].max()) + 1)],
        "useragent": [f"{device}_chrome" for device in DEVICES],
        "slotprice": _FLOOR_NAMES,
        "usertag": [*AGES, *CATEGORIES],
    }


def yzx_codes(world: World, chunk: Columns) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The code of every row in each of iPinYou's columns, in the order of a line; -1 where a row has none."""
    user, item, position = chunk["user"], chunk["item"], chunk["position"] - 1
    favourite = np.abs(world.users["taste"][user]).argmax(axis=1) * 3
    columns: dict[str, NDArray[Any]] = {
        "weekday": weekday_of(chunk["timestamp"]),
        "hour": hour_of(chunk["timestamp"]),
        "IP": user,
        "region": world.users["region"][user],
        "city": world.users["region"][user] * 3 + user % 3,
        "adexchange": chunk["site"] % 4,
        "domain": chunk["site"],
        "slotid": position,
        "slotwidth": position,
        "slotheight": position,
        "slotvisibility": (position > 1).astype(np.int64),
        "slotformat": position % 2,
        "creative": item,
        "advertiser": world.items["advertiser"][item],
        "useragent": chunk["device"],
        "slotprice": np.searchsorted(_FLOORS, chunk["floor_price"]),
    }
    yield from columns.items()
    yield "usertag", world.users["age"][user]
    yield "usertag", np.where(user % 3 == 0, -1, len(AGES) + favourite)


def _sites() -> list[str]:
    return [f"site-{site}.example" for site in range(SITES)]


def _words(codes: NDArray[np.int64], words: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))
