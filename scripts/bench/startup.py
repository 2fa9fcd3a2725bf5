"""Start-up of the command line: CPU time of `ocad --help` beside a bare interpreter, in turn, and what it imports."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

from report import machine, write_section

ROUNDS = 31
BAR_MS = 100.0
HEAVY = ("torch", "pandas", "sklearn", "onnxruntime", "pyarrow", "pydantic", "rich", "ocad_registry")
COMMANDS = {
    "`python -c pass`": [sys.executable, "-c", "pass"],
    "`ocad --help`": [sys.executable, "-m", "ocad", "--help"],
    "`ocad registry --help`": [sys.executable, "-m", "ocad", "registry", "--help"],
    "`ocad plugins list`": [sys.executable, "-m", "ocad", "plugins", "list"],
}


def cpu_and_wall(command: list[str]) -> tuple[float, float]:
    """CPU and wall milliseconds of one run of `command`, interpreter included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu * 1e3, wall * 1e3


def imported() -> list[str]:
    """Which of the heavy modules `ocad --help` imports."""
    lines = ("import sys", "sys.argv = ['ocad', '--help']", "from ocad.__main__ import run", "run()")
    code = "\n".join((*lines, f"print(*[m for m in {HEAVY} if m in sys.modules])"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def main() -> None:
    """Runs every command in turn for each round and writes the section."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            figures[name].append(cpu_and_wall(command))
    rows = []
    for name, measured in figures.items():
        cpu, wall = (statistics.median(column) for column in zip(*measured, strict=True))
        rows.append(f"| {name} | {cpu:.0f} | {wall:.0f} |")
    body = "\n".join(
        [
            f"{machine()}; medians of {ROUNDS} rounds in turn. Bar: `ocad --help` ≤ {BAR_MS:.0f} ms CPU.",
            f"Heavy modules that `ocad --help` imports: {', '.join(imported()) or 'none'}.",
            "",
            "| command | CPU ms | wall ms |",
            "| --- | --- | --- |",
            *rows,
        ]
    )
    write_section("startup", "Start-up", body)
    print(body)


if __name__ == "__main__":
    main()
