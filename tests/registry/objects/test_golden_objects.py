"""The golden registries of FORMAT.md §11 once more, read from a bucket: the same answers, where a bucket can hold the case."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.registry import test_golden_vectors as vectors

from ocad_registry import Registry
from ocad_registry.remotes import connect

LINKS = {"symlink"}
"""A bucket has no symlinks."""
QUICK = {"alias-damaged", "illegal-names", "object-store", "object-store-damaged", "tombstone", "valid"}


def cases() -> Iterator[Any]:
    for name in sorted(set(vectors.CASES) - LINKS):
        yield pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("name", list(cases()))
def test_reader_agrees_in_a_bucket(name: str, tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = vectors.Golden(name, tmp_path)
    system = connect(moto_url)
    for path in golden.root.rglob("*"):
        if path.is_file():
            system.put_file(str(path), f"{moto_url.removeprefix('s3://')}/{path.relative_to(golden.root).as_posix()}")
    golden.registry = Registry(moto_url)
    vectors.test_reader_agrees(golden, tmp_path, monkeypatch)
