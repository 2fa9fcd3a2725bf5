"""The plugin `rule_based`: thresholds that an operator reads and edits, the baseline that every detector must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ocad.detection.plugin import DetectorPlugin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocad.contexts import RunContext
    from ocad_rule_based.config import RuleConfig
    from ocad_rule_based.detector import RuleDetector


class RuleBased(DetectorPlugin):
    """The hooks; numpy is imported when one runs."""

    name = "rule_based"
    summary = "thresholds: level, jump, loss and missed continuity checks against each endpoint's normal, by the hour"

    def config(self) -> type[RuleConfig]:
        """See `DetectorPlugin`."""
        from ocad_rule_based.config import RuleConfig

        return RuleConfig

    def build(self, context: RunContext, metrics: Sequence[str]) -> RuleDetector:
        """See `DetectorPlugin`."""
        return self.make(cast("RuleConfig", context.config), metrics)

    def make(self, config: RuleConfig, metrics: Sequence[str]) -> RuleDetector:
        """See `DetectorPlugin`."""
        from ocad_rule_based.detector import RuleDetector

        return RuleDetector(metrics, config.rules)

    def detector_type(self) -> type[RuleDetector]:
        """See `DetectorPlugin`."""
        from ocad_rule_based.detector import RuleDetector

        return RuleDetector


plugin = RuleBased()
globals().update(plugin.hooks())
