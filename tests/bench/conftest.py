"""The benchmarks are scripts of one folder that import each other by name; here their folder is on the path."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).resolve().parents[2] / "scripts" / "bench")
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)
