"""The report of a detection: one self-contained HTML file that a person reads without a network."""

from __future__ import annotations

from ocad.report.page import write_report

__all__ = ["write_report"]
