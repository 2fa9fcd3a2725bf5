"""Timelines as SVG: what was measured, what the detectors said, what was true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, LEFT = 1080, 160
"""Pixels of the whole chart, and of its margin for labels."""
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
    """One endpoint's chart; `seconds` `(n,)` since 1970 UTC are the horizontal axis. Parts are added top to bottom."""

    seconds: Floats
    _parts: list[str] = field(default_factory=list)
    _height: float = 0.0

    def curves(self, label: str, series: Mapping[str, Floats], logarithmic: bool = False) -> None:
        """Curves `(n,)` in one panel with a common scale; NaN leaves a gap. Each pixel column shows its least and largest."""
        finite = np.concatenate([values[np.isfinite(values)] for values in series.values()] or [np.empty(0)])
        if logarithmic:
            finite = finite[finite > 0]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1.0, 2.0)
        scale = _scale(low, high, logarithmic)
        top = self._height
        for colour, (name, values) in zip(COLOURS, series.items(), strict=False):
            path = self._path(values, scale, top)
            self._parts.append(f'<path d="{path}" stroke="{colour}" fill="none"><title>{escape(name)}</title></path>')
        self._parts.append(_text(4, top + 12, label))
        if len(finite):
            self._parts += [_text(LEFT - 6, top + y, _short(end), "end") for y, end in ((12, high), (PANEL - 2, low))]
        else:
            self._parts.append(_text(LEFT + 8, top + PANEL / 2, "nothing was measured"))
        if len(series) > 1:
            self._parts += _legend(series, top + 24)
        self._height += PANEL + SPACE

    def strip(self, label: str, intervals: Sequence[tuple[int, int, str]], colour: str) -> None:
        """Intervals of rows (first and last, included) as blocks, each with a text that shows under the pointer."""
        top = self._height
        self._parts.append(_text(4, top + STRIP - 2, label))
        self._parts.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT}" height="{STRIP}" class="empty"/>')
        for first, last, text in intervals:
            x, end = self._x(self.seconds[first]), self._x(self.seconds[last])
            self._parts.append(
                f'<rect x="{x:.1f}" y="{top}" width="{max(2.0, end - x):.1f}" height="{STRIP}" fill="{colour}">'
                f"<title>{escape(text)}</title></rect>"
            )
        self._height += STRIP + SPACE / 2

    def svg(self) -> str:
        """The chart with its time axis in UTC."""
        height = self._height + 18
        step = next((step for step in TICK_STEPS if self._span() / step <= MOST_TICKS), TICK_STEPS[-1])
        first = math.ceil(self.seconds[0] / step) * step
        ticks = [
            _text(self._x(moment), height - 4, _clock(moment, step), "middle")
            for moment in range(first, math.floor(self.seconds[-1]) + 1, step)
        ]
        begin = datetime.fromtimestamp(int(self.seconds[0]), UTC)
        unit = _text(4, height - 4, f"UTC, from {begin:%Y-%m-%d}")
        body = "".join([*self._parts, *ticks, unit])
        return f'<svg viewBox="0 0 {WIDTH + 16} {height:.0f}" role="img">{body}</svg>'

    def _span(self) -> float:
        return max(float(self.seconds[-1] - self.seconds[0]), 1e-9)

    def _x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT) * float(seconds - self.seconds[0]) / self._span()

    def _path(self, values: Floats, scale: tuple[float, float, bool], top: float) -> str:
        columns = ((self.seconds - self.seconds[0]) / self._span() * (WIDTH - LEFT - 1)).astype(np.int64)
        heights = top + PANEL * (1 - _scaled(values, scale))
        commands, before = [], -WIDTH
        for column in np.unique(columns[np.isfinite(heights)]):
            inside = heights[columns == column] if len(values) < WIDTH else heights[slice(*_range(columns, column))]
            inside = inside[np.isfinite(inside)]
            x = LEFT + int(column)
            joined = "L" if column - before <= max(2.0, 3 * (WIDTH - LEFT) / len(values)) else "M"
            commands.append(f"{joined}{x} {inside.min():.1f}")
            if inside.max() - inside.min() > 0.5:
                commands.append(f"L{x} {inside.max():.1f}")
            before = int(column)
        return "".join(commands)


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


def _clock(moment: int, step: int) -> str:
    """The tick at `moment` as far as ticks `step` seconds apart need it; midnight as its date."""
    time = datetime.fromtimestamp(moment, UTC)
    if step >= 365 * DAY:
        return f"{time:%Y}"
    if moment % DAY == 0:
        return f"{time:%m-%d}"
    return f"{time:%H:%M}" if step >= MINUTE else f"{time:%H:%M:%S}"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
