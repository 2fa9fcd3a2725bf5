"""Writes the golden registries of FORMAT.md §11: `python -m tests.golden.make_registry_vectors [FOLDER]`.

What each case expects is stated by hand, from FORMAT.md, and never computed by a reader. The output is the same on every
run: times, digests and bytes are fixed.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from tests.golden import (  # noqa: F401 - they fill CASES
    registry_layout_cases,
    registry_metadata_cases,
    registry_object_cases,
)
from tests.golden.registry_case import CASES, Case
from tests.golden.registry_signature_cases import signatures, signed_aliases  # noqa: F401 - they too

HERE = Path(__file__).resolve().parent / "registry"


def main() -> None:
    """Writes every case anew."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, build in CASES.items():
        folder = target / name
        shutil.rmtree(folder, ignore_errors=True)
        built = Case(folder)
        built.expected["description"] = " ".join((build.__doc__ or "").split())
        build(built)
        (folder / "expected.json").write_text(
            json.dumps(built.finish(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
