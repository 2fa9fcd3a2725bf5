"""The public conformance suite: `check_plugin` holds every promise of the plugin contract, for built-in plugins and foreign ones.

>>> from ocad.testing import check_plugin
>>> assert all(finding.verdict != "failed" for finding in check_plugin("tcn"))  # doctest: +SKIP
"""

from ocad.testing.bench import Finding
from ocad.testing.conformance import check_plugin

__all__ = ["Finding", "check_plugin"]
