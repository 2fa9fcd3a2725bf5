"""What a time means: ISO 8601 in all its forms, numbers since 1970, a format of one's own, with or without a zone.

`Clock` reads one value, or a column of them with the same answers: files, streams and click logs share it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from ocad.cells import NULLS, NUMBER, plain
from ocad.errors import DataError, shown

if TYPE_CHECKING:
    from datetime import tzinfo

Endpoints = Sequence[str] | NDArray[Any]
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 for year in (1900, 2200))
"""Times outside these years (µs) are the zero of some other program, or damage."""
USUAL = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?"
_ZONE = r"(?:Z|[+-]\d{2}:\d{2})$"
_DIGITS = re.compile(NUMBER, re.ASCII)
_SPACED = re.compile(r"\s+(?=(?:[+-]\d{2}(?::?\d{2})?|[Zz])$)")
_UNLIKE = r"(?i)^\s*(?:now|today)\s*$"
"""Cells that pandas takes for the present moment, whatever the format."""
_FINE = r"\d{7}"
"""Perhaps more digits of a second than `%f` has, which pandas cuts off."""
_NAMED = re.compile(r"\s*(?:UTC|GMT|[Zz])$")
MISSING, NUMERIC, NO_TIME, OUTSIDE = "missing", "numeric", "no time", "outside"


def known_format(text: str) -> str:
    """`text`, a format as for `strptime`; raises `ValueError` where it is none, or leaves the year out."""
    some = datetime(2024, 11, 30, 15, 20, 10, tzinfo=UTC)
    try:
        year = datetime.strptime(some.strftime(text), text).year
    except (ValueError, re.error) as error:
        raise ValueError(f"`{text}` is no format of times ({error}); write it as `%d.%m.%Y %H:%M:%S`") from None
    if year != some.year:
        raise ValueError(f"the format `{text}` has no year; write it as `%d.%m.%Y %H:%M:%S`")
    return text


class TimeError(ValueError):
    """A value that is no time; `reason` is one of `MISSING`, `NUMERIC` (a number without a unit), `NO_TIME`, `OUTSIDE`."""

    def __init__(self, reason: str, place: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.place = reason, place


def column_error(name: str, row: int, value: object, reason: str, clock: Clock) -> DataError:
    """What to tell of a file's column whose `value` in `row` is no time for this `reason` (`TimeError`)."""
    if reason == MISSING:
        return DataError(f"column `{name}` has no time in row {row}", "remove the row")
    if reason == NUMERIC:
        hint = "give its `time_unit` in `configs/data/`, or write times as ISO 8601"
        return DataError(f"column `{name}` holds numbers, not times", hint)
    told = f"column `{name}` holds `{shown(value)}` in row {row}"
    if reason == OUTSIDE:
        return DataError(f"{told}, outside the years 1900 to 2199", "correct the clock that wrote it")
    return DataError(f"{told}, not a time", f"write times as {clock.spelling}")


@dataclass(slots=True)
class Clock:
    """How a source writes its times, with a count of what was not plain.

    Of the hour that a zone has twice (the end of summer time) the first one is meant, until the times of an endpoint go
    back by more than half of it. A time in the hour that a zone leaves out is read as if that hour were there.
    """

    unit: str | None = None
    """Of times that are numbers since 1970."""
    zone: str | None = None
    """Of times without one; None: UTC."""
    format: str | None = None
    """As for `strptime`; None: ISO 8601."""
    zoneless: int = 0
    skipped: int = 0
    """Times that the zone leaves out."""
    doubled: int = 0
    """Times that the zone has twice."""
    _doubled: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Endpoint → day, local time and fold of its last row in a doubled hour."""

    @property
    def spelling(self) -> str:
        """How it is written, for a person."""
        return f"`{self.format}`" if self.format else "ISO 8601"

    def read(self, value: object, endpoint: str = "") -> int:
        """One time in µs since 1970 (UTC); raises `TimeError`."""
        moment = self._moment(value)
        if isinstance(moment, datetime):
            moment = self._utc(moment, endpoint)
        if not FIRST <= moment < LAST:
            raise TimeError(OUTSIDE)
        return moment

    def read_column(self, column: pa.Array, endpoints: Endpoints | None = None) -> NDArray[np.int64]:
        """All times of a column in µs; raises `TimeError` for the first value that is none, with its place."""
        moments, reasons = self.try_column(column, endpoints)
        if reasons:
            place = min(reasons)
            raise TimeError(reasons[place], place)
        return moments

    def try_column(
        self, column: pa.Array, endpoints: Endpoints | None = None
    ) -> tuple[NDArray[np.int64], dict[int, str]]:
        """All times of a column in µs, and by place the reason why a value is none."""
        column = plain(column, "")
        moments = np.zeros(len(column), np.int64)
        done = np.zeros(len(column), bool)
        if types.is_string(column.type):
            self._read_usual(column, moments, done)
        elif types.is_timestamp(column.type) or types.is_date(column.type):
            self._read_typed(column, moments, done)
        elif types.is_integer(column.type) and self.unit and column.null_count == 0:
            numbers = column.cast(pa.int64(), safe=False).to_numpy()
            per_second = PER_SECOND[self.unit]
            fine = np.abs(numbers) < (1 << 62) // max(1, 1_000_000 // per_second)
            fine &= (numbers >= 0) | (not types.is_uint64(column.type))
            moments[fine] = _scaled(numbers[fine], per_second)
            done[:] = fine
        reasons: dict[int, str] = {}
        places = np.flatnonzero(~done)
        values = column.take(pa.array(places)).to_pylist() if len(places) else []
        for place, value in zip(places.tolist(), values, strict=True):
            try:
                moments[place] = self.read(value, endpoints[place] if endpoints is not None else "")
            except TimeError as error:
                reasons[place] = error.reason
        outside = done & ((moments < FIRST) | (moments >= LAST))
        reasons |= dict.fromkeys(np.flatnonzero(outside).tolist(), OUTSIDE)
        return moments, reasons

    def _moment(self, value: object) -> int | datetime:
        """µs, or a time whose zone may be missing."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise TimeError(MISSING)
        if isinstance(value, bool):
            raise TimeError(NO_TIME)
        if isinstance(value, Decimal):
            value = int(value) if value == int(value) else float(value)
        if isinstance(value, int | float):
            return self._number(value)
        if isinstance(value, datetime):
            return value
        if not isinstance(value, str):
            raise TimeError(NO_TIME)
        text = value.strip()
        if text in NULLS:
            raise TimeError(MISSING)
        if self.format:
            return _by_format(text, self.format)
        number = text.replace(",", ".")
        if _DIGITS.match(number) and len(text) < 40:
            return self._number(int(text) if text.isdecimal() else float(number))
        return _iso(text)

    def _number(self, value: float) -> int:
        if self.unit is None:
            raise TimeError(NUMERIC)
        if isinstance(value, float) and not math.isfinite(value):
            raise TimeError(NO_TIME)
        per_second = PER_SECOND[self.unit]
        if isinstance(value, int):
            return value * 1_000_000 // per_second
        return round(value * (1_000_000 / per_second))

    def _utc(self, moment: datetime, endpoint: str) -> int:
        if moment.tzinfo is None:
            self.zoneless += 1
            moment = moment.replace(tzinfo=self._localised(moment, endpoint))
        try:
            since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        except OverflowError:
            raise TimeError(OUTSIDE) from None
        return since // timedelta(microseconds=1)

    def _localised(self, moment: datetime, endpoint: str) -> tzinfo:
        """The zone of a time without one, at this moment."""
        if self.zone is None:
            return UTC
        try:
            zone = ZoneInfo(self.zone)
            before, after = (moment.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
        except OverflowError:
            raise TimeError(OUTSIDE) from None
        assert before is not None
        assert after is not None
        offset = before
        if before < after:
            self.skipped += 1
        elif before > after:
            self.doubled += 1
            offset = after if self._is_second(moment, endpoint, before - after) else before
        from datetime import timezone

        return timezone(offset)

    def _is_second(self, moment: datetime, endpoint: str, doubled: timedelta) -> bool:
        """Whether the second of two equal hours is meant: the endpoint's times went back since its first rows in it."""
        local = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        day = moment.toordinal()
        last_day, last, fold = self._doubled.get(endpoint, (0, 0, 0))
        back = last - local > doubled / timedelta(microseconds=2)
        fold = 0 if day != last_day else 1 if back else fold
        self._doubled[endpoint] = (day, local, fold)
        return fold == 1

    def _read_usual(self, column: pa.Array, moments: NDArray[np.int64], done: NDArray[np.bool_]) -> None:
        """The spellings that nearly every file has, or the format, all at once."""
        if self.format and "%z" not in self.format.lower():
            unlike = f"{_UNLIKE}|{_FINE}" if "%f" in self.format else _UNLIKE
            usual = pc.if_else(pc.match_substring_regex(column, unlike), None, column)
            found = pd.to_datetime(usual.to_pandas(), format=self.format, errors="coerce")
            naive = found.notna().to_numpy()
            times = found.dt.as_unit("us").to_numpy().astype(np.int64)
        elif self.format:
            return
        else:
            zoned = pc.match_substring_regex(column, USUAL + _ZONE).fill_null(False).to_numpy(zero_copy_only=False)
            naive = pc.match_substring_regex(column, USUAL + "$").fill_null(False).to_numpy(zero_copy_only=False)
            chosen = pc.if_else(pa.array(zoned | naive), column, None).to_pandas()
            found = pd.to_datetime(chosen, format="ISO8601", utc=True, errors="coerce")
            times = found.dt.as_unit("us").to_numpy(dtype="datetime64[us]").astype(np.int64)
            zoned &= found.notna().to_numpy()
            naive &= found.notna().to_numpy()
            moments[zoned], done[zoned] = times[zoned], True
        self._place_naive(times, naive, moments, done)

    def _read_typed(self, column: pa.Array, moments: NDArray[np.int64], done: NDArray[np.bool_]) -> None:
        zoned = types.is_timestamp(column.type) and column.type.tz is not None
        present = column.is_valid().to_numpy(zero_copy_only=False)
        per_second = PER_SECOND[column.type.unit] if types.is_timestamp(column.type) else None
        if per_second is None:
            column, per_second = column.cast(pa.timestamp("s")), 1
        times = _scaled(column.cast(pa.int64()).fill_null(0).to_numpy(), per_second)
        if zoned:
            moments[present], done[present] = times[present], True
        else:
            self._place_naive(times, present, moments, done)

    def _place_naive(
        self, times: NDArray[np.int64], naive: NDArray[np.bool_], moments: NDArray[np.int64], done: NDArray[np.bool_]
    ) -> None:
        """Local times (µs) to UTC, those of a doubled or skipped hour left to be read one by one in the file's order."""
        naive = naive & (times >= FIRST) & (times < LAST)
        if self.zone and naive.any():
            local = pd.Series(pd.to_datetime(times[naive], unit="us"))
            placed = local.dt.tz_localize(self.zone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")
            plain_hour = placed.notna().to_numpy()
            times = times.copy()
            times[naive] = placed.dt.tz_localize(None).dt.as_unit("us").to_numpy().astype(np.int64)
            naive = naive.copy()
            naive[naive] = plain_hour
        moments[naive], done[naive] = times[naive], True
        self.zoneless += int(naive.sum())


def _scaled(numbers: NDArray[np.int64], per_second: int) -> NDArray[np.int64]:
    """Counts of a unit in µs, cut off as `int` divides."""
    scaled: NDArray[np.int64] = (
        numbers // (per_second // 1_000_000) if per_second > 1_000_000 else numbers * (1_000_000 // per_second)
    )
    return scaled


def _by_format(text: str, pattern: str) -> datetime:
    try:
        return datetime.strptime(text, pattern)
    except ValueError:
        raise TimeError(NO_TIME) from None


def _iso(text: str) -> datetime:
    """ISO 8601: dates, weeks, basic and extended forms, comma or point, any offset; a zone may stand apart, or be `UTC`."""
    try:
        return datetime.fromisoformat(_NAMED.sub("+00:00", _SPACED.sub("", text)))
    except ValueError:
        raise TimeError(NO_TIME) from None
