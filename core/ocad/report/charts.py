"""Timelines as SVG: what was measured, what the detectors said, what was true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, LEFT = 1080, 140
"""Pixels of the whole chart, and of its margin for labels."""
PANEL, STRIP, SPACE = 64, 12, 10
"""Pixels of the height of a curve, of a strip of intervals, and between them."""
COLOURS = ("#1f6feb", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#57606a")


@dataclass(slots=True)
class Timeline:
    """One endpoint's chart; `seconds` `(n,)` from its first row are the horizontal axis. Parts are added top to bottom."""

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
        self._parts += [_text(4, top + 12, label), _text(LEFT - 6, top + 12, _short(high), "end")]
        self._parts.append(_text(LEFT - 6, top + PANEL - 2, _short(low), "end"))
        if len(series) > 1:
            self._parts += _legend(series, top + PANEL / 2)
        self._height += PANEL + SPACE

    def level(self, label: str, values: Floats, threshold: float) -> None:
        """One curve and the level from which it counts."""
        self.curves(label, {label: values})
        high = float(np.nanmax(values, initial=threshold))
        y = self._height - SPACE - PANEL * min(1.0, threshold / high if high > 0 else 1.0)
        self._parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="level"/>')

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
        """The chart with its time axis, in minutes from the first row."""
        height = self._height + 18
        ticks = []
        for minutes in np.linspace(0, self._span() / 60, 9):
            x = self._x(minutes * 60)
            ticks.append(_text(x, height - 4, f"{minutes:.0f}" if self._span() > 600 else f"{minutes:.1f}", "middle"))
        unit = _text(4, height - 4, "minutes")
        body = "".join([*self._parts, *ticks, unit])
        return f'<svg viewBox="0 0 {WIDTH + 12} {height:.0f}" role="img">{body}</svg>'

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
        f'<text x="4" y="{y + 9 * index:.0f}" style="fill:{colour}" class="small">{escape(name[:18])}</text>'
        for index, (colour, name) in enumerate(zip(COLOURS, series, strict=False))
    ]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
