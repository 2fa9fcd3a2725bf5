"""Units of measurements: what a column's name says, and the factor to the project's own unit of a metric."""

from __future__ import annotations

import re

from ocad.errors import UsageError

UNITS = {"udp_echo": "µs", "ecpri": "µs", "lbm": "µs", "ccm": "share"}
"""The canonical metrics and their units; any other column keeps the unit that its source has."""
_SIZES = {
    "µs": {"ns": 0.001, "us": 1.0, "µs": 1.0, "μs": 1.0, "usec": 1.0, "ms": 1e3, "msec": 1e3, "s": 1e6, "sec": 1e6},
    "share": {"share": 1.0, "ratio": 1.0, "%": 0.01, "percent": 0.01, "pct": 0.01, "‰": 0.001, "ppm": 1e-6},
}
_BRACKETS = re.compile(r"^(.*\S)\s*\[([^\[\]]+)\]$")
_NAMED = re.compile(r"[\[(]\s*([^\[\]()]+?)\s*[\])]$|[\s_](ns|us|µs|ms|msec|sec|s|%|pct|percent)$")


def split_unit(text: str) -> tuple[str, str]:
    """`RTT (ms) [ms]` as the column `RTT (ms)` and the unit `ms`; the unit is empty where none is written."""
    found = _BRACKETS.match(text.strip())
    return (found[1], found[2].strip()) if found else (text.strip(), "")


def unit_in(name: str) -> str:
    """The unit that a column's name ends in, as `RTT (ms)`, `rtt_ms` or `Loss %` do; empty where it names none we know."""
    found = _NAMED.search(name.strip())
    unit = (found[1] or found[2] or "") if found else ""
    return unit if any(unit in sizes for sizes in _SIZES.values()) else ""


def measures(metric: str, unit: str) -> bool:
    """Whether a column in `unit` may be the canonical `metric`: a share only with a unit, lest counts be taken for one."""
    return unit in _SIZES[UNITS[metric]] or (not unit and UNITS[metric] != "share")


def factor_to(metric: str, unit: str) -> float:
    """What a value in `unit` is multiplied by for the metric's own unit; 1 for a metric that has none.

    Raises `UsageError` for a unit that does not measure what the metric does.
    """
    own = UNITS.get(metric)
    if own is None or not unit:
        return 1.0
    sizes = _SIZES[own]
    if unit not in sizes:
        known = ", ".join(f"`{name}`" for name in sizes)
        raise UsageError(f"the metric `{metric}` is measured in `{own}`, not `{unit}`", f"known: {known}")
    return sizes[unit]
