"""The settings that the leave-one-set-out table chooses from: data, in one place; the first of each detector is what is shipped.

Every detector has few, so that a choice on seven sets means something. Keys are those of the plugin's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ocad.detection.rule import AlarmRule

SHIPPED = "shipped"


@dataclass(frozen=True, slots=True)
class Setting:
    """Overrides of the plugin's configuration (`key=value`), and the alarm level in noise units (None: the plain rule's)."""

    overrides: tuple[str, ...] = ()
    on: float | None = None

    def rule(self) -> AlarmRule | None:
        """The plain rule with its levels moved to `on`."""
        if self.on is None:
            return None
        return AlarmRule.plain().at(self.on)


GRID: Mapping[str, Mapping[str, Setting]] = {
    "rule_based": {
        SHIPPED: Setting(),
        "level 6": Setting(on=6.0),
        "level 10": Setting(on=10.0),
        "slow": Setting(("rules.level.block=30", "rules.level.memory=20")),
        "both ways": Setting(("rules.level.direction=both",)),
    },
    "changepoint": {
        SHIPPED: Setting(),
        "level 6": Setting(on=6.0),
        "level 10": Setting(on=10.0),
        "slow": Setting(("cusum.window=30", "cusum.block=30", "cusum.memory=20")),
        "quick": Setting(("cusum.block=6", "cusum.memory=7")),
        "drift 1": Setting(("cusum.drift=1",)),
        "linear": Setting(("cusum.log=false",)),
        "both ways": Setting(("cusum.direction=both",)),
    },
    "subspace": {
        SHIPPED: Setting(),
        "level 6": Setting(on=6.0),
        "single rows": Setting(("pca.spans=[1]",)),
        "windows": Setting(("pca.windows=[1,5]", "pca.variance=0.9", "pca.spans=[1]")),
        "half": Setting(("pca.variance=0.5",)),
        "smoothed": Setting(("pca.variance=0.5", "pca.spans=[10]")),
        "smoothed 30": Setting(("pca.spans=[30]",)),
    },
    "isolation_forest": {
        SHIPPED: Setting(),
        "level 6": Setting(on=6.0),
    },
}
