"""The page of detection's figures: each script replaces its own section and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from detection_results import HEADER, write_section


def test_a_section_is_replaced_where_it_stands_and_the_rest_is_kept(tmp_path: Path) -> None:
    page = tmp_path / "results" / "detection.md"
    write_section("one", "## One\n\nfirst", page)
    write_section("two", "## Two", page)
    page.write_text(
        page.read_text(encoding="utf-8").replace("<!-- two -->", "By hand.\n\n<!-- two -->"), encoding="utf-8"
    )
    write_section("one", "## One\n\nsecond", page)
    assert page.read_text(encoding="utf-8") == (
        f"{HEADER}\n<!-- one -->\n## One\n\nsecond\n<!-- /one -->\n\nBy hand.\n\n<!-- two -->\n## Two\n<!-- /two -->\n"
    )


def test_a_name_that_is_no_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="section name"):
        write_section("One -->", "text", tmp_path / "page.md")
