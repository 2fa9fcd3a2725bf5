"""Timelines as SVG: what was measured, what the detectors said, what was true.

Without a script they stand still and whole; `page.js` zooms the inner `svg.plot` and tells the values under the pointer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, LEFT = 1080, 160
"""Pixels of the whole chart, and of its margin for labels."""
WIDE = 3_680
"""Units of the plot's inner width, four to a pixel, so that it can be zoomed."""
PANEL, STRIP, SPACE = 64, 12, 10
"""Pixels of the height of a curve, of a strip of intervals, and between them."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400
TICK_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(MINUTE * many for many in (1, 2, 5, 10, 15, 30)),
    *(HOUR * many for many in (1, 2, 3, 6, 12)),
    *(DAY * many for many in (1, 2, 7, 14, 30, 90, 365)),
)
"""Seconds that may lie between two ticks of the time axis."""
MOST_TICKS = 10
LONGEST_NAME = 26
"""Letters of a detector's name that fit into the margin."""
COLOURS = ("#1f6feb", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#57606a")


@dataclass(slots=True)
class Timeline:
    """One endpoint's chart; `seconds` `(n,)` since 1970 are the horizontal axis. Parts are added top to bottom."""

    seconds: Floats
    zone: tzinfo = UTC
    _behind: list[tuple[float, float, str, str]] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    """What stands in the plot, drawn in its own units."""
    _labels: list[str] = field(default_factory=list)
    _values: dict[str, Floats] = field(default_factory=dict)
    _told: list[tuple[int, int, str]] = field(default_factory=list)
    _height: float = 0.0

    def shade(self, first_s: float, last_s: float, text: str, kind: str) -> None:
        """A band over the whole height, behind everything; `kind` is its class in the page's style."""
        self._behind.append((self._x(first_s), self._x(last_s), text, kind))

    def curves(
        self, label: str, series: Mapping[str, Floats], logarithmic: bool = False, level: float | None = None
    ) -> None:
        """Curves `(n,)` in one panel with a common scale and a line at `level`; NaN leaves a gap.

        Each column of pixels shows its least and its largest value.
        """
        finite = np.concatenate([values[np.isfinite(values)] for values in series.values()] or [np.empty(0)])
        finite = finite if level is None else np.append(finite, level)
        if logarithmic:
            finite = finite[finite > 0]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1.0, 2.0)
        scale = _scale(low, high, logarithmic)
        top = self._height
        for colour, (name, values) in zip(COLOURS, series.items(), strict=False):
            path = self._path(values, scale, top)
            self._parts.append(f'<path d="{path}" stroke="{colour}" fill="none"/>')
            self._values[f"{label} {name}" if len(series) > 1 else label] = values
        self._labels.append(_text(4, top + 12, label))
        if level is not None:
            y = top + PANEL * (1 - float(_scaled(np.array([level]), scale)[0]))
            self._parts.append(
                f'<line x1="0" x2="{WIDE}" y1="{y:.1f}" y2="{y:.1f}" class="level">'
                f"<title>alarm level {_short(level)}</title></line>"
            )
        if len(finite):
            self._labels += [_text(LEFT - 6, top + y, _short(end), "end") for y, end in ((12, high), (PANEL - 2, low))]
        else:
            self._labels.append(_text(LEFT + 8, top + PANEL / 2, "nothing was measured"))
        if len(series) > 1:
            self._labels += _legend(series, top + 24)
        self._height += PANEL + SPACE

    def strip(self, label: str, intervals: Sequence[tuple[int, int, str]], colour: str, through: bool = False) -> None:
        """Intervals of rows (first and last, included) as blocks, each with a text that shows under the pointer.

        However short, each is wide enough to see. With `through` they also stand behind the whole chart.
        """
        top = self._height
        self._labels.append(_text(4, top + STRIP - 2, label))
        self._parts.append(f'<rect x="0" y="{top}" width="{WIDE}" height="{STRIP}" class="empty"/>')
        for first, last, text in intervals:
            x, end = self._x(self.seconds[first]), self._x(self.seconds[last])
            self._parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{end - x:.1f}" height="{STRIP}" fill="{colour}" stroke="{colour}" '
                f'class="block"><title>{escape(text)}</title></rect>'
            )
            if through:
                self._behind.append((x, end, text, "during"))
                self._told.append((round(x), round(end), text))
        self._height += STRIP + SPACE / 2

    def figure(self) -> str:
        """The chart with what `page.js` needs to zoom it and to tell values."""
        columns = self._columns()
        occupied, first = np.unique(columns, return_index=True)
        bounds = np.append(first, len(columns))
        told = {
            "begin": float(self.seconds[0]),
            "span": self._span(),
            "zone": getattr(self.zone, "key", "UTC"),
            "wide": WIDE,
            "left": LEFT,
            "width": WIDTH - LEFT,
            "foot": self._height + 14,
            "steps": TICK_STEPS,
            "x": occupied.tolist(),
            "series": [(name, _farthest(values, bounds)) for name, values in self._values.items()],
            "incidents": self._told,
        }
        data = json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        return f'<figure class="timeline">{self.svg()}<output></output><script type="application/json">{data}</script></figure>'

    def svg(self) -> str:
        """The chart with its time axis."""
        height = self._height + 18
        step = next((step for step in TICK_STEPS if self._span() / step <= MOST_TICKS), TICK_STEPS[-1])
        offset = datetime.fromtimestamp(int(self.seconds[0]), self.zone).utcoffset()
        shift = 0 if offset is None else int(offset.total_seconds())
        first = math.ceil((self.seconds[0] + shift) / step) * step - shift
        ticks = [
            _text(LEFT + self._x(moment) / WIDE * (WIDTH - LEFT), height - 4, _clock(moment, step, self.zone), "middle")
            for moment in range(first, math.floor(self.seconds[-1]) + 1, step)
        ]
        begin = datetime.fromtimestamp(int(self.seconds[0]), self.zone)
        axis = "".join([*ticks, _text(4, height - 4, f"{begin:%Z}, from {begin:%Y-%m-%d}")])
        bands = (
            f'<rect x="{x:.1f}" y="0" width="{end - x:.1f}" height="{self._height:.0f}" class="{kind}">'
            f"<title>{escape(text)}</title></rect>"
            for x, end, text, kind in self._behind
        )
        inside = "".join([*bands, *self._parts])
        return (
            f'<svg class="chart" viewBox="0 0 {WIDTH + 16} {height:.0f}" role="img">'
            f'<svg class="plot" x="{LEFT}" y="0" width="{WIDTH - LEFT}" height="{self._height:.0f}" '
            f'viewBox="0 0 {WIDE} {self._height:.0f}" preserveAspectRatio="none">'
            f'<rect x="0" y="0" width="{WIDE}" height="{self._height:.0f}" class="ground"/>{inside}'
            f'<line class="pointer" x1="0" x2="0" y1="0" y2="{self._height:.0f}" visibility="hidden"/></svg>'
            f'{"".join(self._labels)}<g class="axis">{axis}</g></svg>'
        )

    def _span(self) -> float:
        return max(float(self.seconds[-1] - self.seconds[0]), 1e-9)

    def _x(self, seconds: float) -> float:
        """In the plot's units."""
        return WIDE * float(seconds - self.seconds[0]) / self._span()

    def _columns(self) -> NDArray[np.int64]:
        return np.asarray((self.seconds - self.seconds[0]) / self._span() * (WIDE - 1), np.int64)

    def _path(self, values: Floats, scale: tuple[float, float, bool], top: float) -> str:
        columns = self._columns()
        heights = top + PANEL * (1 - _scaled(values, scale))
        commands, before = [], -WIDE
        for column in np.unique(columns[np.isfinite(heights)]):
            inside = heights[slice(*_range(columns, column))]
            inside = inside[np.isfinite(inside)]
            joined = "L" if column - before <= max(2.0, 3 * WIDE / len(values)) else "M"
            commands.append(f"{joined}{column} {inside[0]:.1f}")
            if inside.max() - inside.min() > 0.5:
                commands.append(f"L{column} {inside.min():.1f}L{column} {inside.max():.1f}")
            before = int(column)
        return "".join(commands)


def _farthest(values: Floats, bounds: NDArray[np.int64]) -> list[float | None]:
    """Of the rows between each two of `bounds` the value that is farthest from the median; None where none is known."""
    known = np.isfinite(values)
    centre = float(np.median(values[known])) if known.any() else 0.0
    distance = np.where(known, np.abs(values - centre), -1.0)
    places = [int(first + distance[first:end].argmax()) for first, end in pairwise(bounds.tolist())]
    return [float(f"{values[place]:.5g}") if known[place] else None for place in places]


def _range(columns: NDArray[np.int64], column: int) -> tuple[int, int]:
    return int(np.searchsorted(columns, column)), int(np.searchsorted(columns, column, "right"))


def _scale(low: float, high: float, logarithmic: bool) -> tuple[float, float, bool]:
    if logarithmic:
        return float(np.log(low)), float(np.log(high)) if high > low else float(np.log(low)) + 1, True
    return low, high if high > low else low + 1, False


def _scaled(values: Floats, scale: tuple[float, float, bool]) -> Floats:
    low, high, logarithmic = scale
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log(values) if logarithmic else values
    return np.asarray(np.clip((shown - low) / (high - low), 0, 1))


def _legend(series: Mapping[str, Floats], y: float) -> list[str]:
    return [
        f'<text x="4" y="{y + 9 * index:.0f}" style="fill:{colour}" class="small">{escape(name[:LONGEST_NAME])}</text>'
        for index, (colour, name) in enumerate(zip(COLOURS, series, strict=False))
    ]


def _clock(moment: int, step: int, zone: tzinfo) -> str:
    """The tick at `moment` as far as ticks `step` seconds apart need it; midnight as its date."""
    time = datetime.fromtimestamp(moment, zone)
    if step >= 365 * DAY:
        return f"{time:%Y}"
    if (time.hour, time.minute, time.second) == (0, 0, 0):
        return f"{time:%m-%d}"
    return f"{time:%H:%M}" if step >= MINUTE else f"{time:%H:%M:%S}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
