"""Memory of ten million simulated rows from the log to the registered model: the peak of each stage's own process."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from report import machine, write_section

from ocad.project import project_root

BAR = 8.0
"""GiB."""


def main() -> None:
    """Simulates, then prepares and trains in a process whose peak is measured, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    config = project_root() / "configs" / "deepfm" / "simulated.yaml"
    ocad = [sys.executable, "-m", "ocad"]
    with tempfile.TemporaryDirectory(dir=project_root() / ".cache") as folder:
        log = f"{folder}/clicks.parquet"
        overrides = ("train.epochs=1", "train.batch_size=4096", "train.bf16=true", "features.label.column=click")
        settings = [part for override in overrides for part in ("--set", override)]
        train = [*ocad, "train", "--plugin", "deepfm", "--data", log, "--config", str(config), "--json", *settings]
        stages = {
            "simulate": measure([*ocad, "data", "simulate", "ctr", "--rows", str(options.rows), "--out", log]),
            "prepare, train, evaluate, export, register": measure(
                [*train, "--runs", f"{folder}/runs", "--registry", f"{folder}/models"]
            ),
        }
    lines = [
        f"{machine()}. {options.rows:,} rows, DeepFM as `configs/deepfm/simulated.yaml` has it, one epoch with batches of 4,096.",
        "",
        "| stage | peak GiB | CPU seconds | seconds |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {peak:.2f} | {cpu:,.0f} | {wall:,.0f} |" for name, (peak, cpu, wall) in stages.items()),
        "",
        f"Bar: {BAR:g} GiB; {'met' if max(peak for peak, _, _ in stages.values()) <= BAR else 'missed'}.",
    ]
    body = "\n".join(lines)
    print(body)
    if not options.no_write:
        write_section("ctr-memory", "Click models: memory", body)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Peak GiB, CPU seconds and seconds of `command`; ends the program when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 3):  # 3: registered, but a gate said no
        sys.exit(f"{' '.join(command)} ended with {code}: {json.loads(answer or '{}')}")
    return usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime, time.perf_counter() - started


if __name__ == "__main__":
    main()
