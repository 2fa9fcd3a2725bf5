"""Records the project's own trace of UDP-echo round-trip times between two network namespaces.

python scripts/record_testbed.py --plan          writes data/udp_echo/schedule.json; commit it
python scripts/record_testbed.py --record        records by the committed schedule (root; about 12 minutes)
python scripts/record_testbed.py --rehearse 30   records half a minute into --folder, to try the machinery
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad.errors import DataError, OcadError
from ocad.probe.recording import Recorder
from ocad.probe.schedule import Schedule, make_schedule, read_schedule

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "udp_echo"
SEED = 20_261_121
DURATION_S = 720.0


def main(arguments: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated recording removes its namespaces
    options = _parser().parse_args(arguments)
    try:
        if options.plan:
            write_plan(options.folder / "schedule.json")
        elif options.rehearse:
            if options.folder.resolve() == FOLDER:
                raise DataError("a rehearsal would overwrite the recording", "give it another `--folder`")
            schedule_file = options.folder / "schedule.json"
            schedule_file.write_text(make_schedule(SEED + 1, options.rehearse, day=20.0).to_json(), encoding="utf-8")
            record(read_schedule(schedule_file), schedule_file, options.folder)
        else:
            schedule_file = FOLDER / "schedule.json"
            require_committed(schedule_file)
            record(read_schedule(schedule_file), schedule_file, FOLDER)
    except OcadError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def write_plan(path: Path) -> None:
    """Writes the schedule; a schedule that stands is never replaced, so that none is drawn again until one pleases."""
    if path.exists():
        raise DataError(
            f"`{path}` exists", "a schedule is drawn once; remove it in a commit of its own to draw another"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule = make_schedule(SEED, DURATION_S)
    path.write_text(schedule.to_json(), encoding="utf-8")
    print(f"wrote {path}: {schedule.duration_s:.0f} s, {len(schedule.incidents)} incidents; commit it, then --record")


def require_committed(path: Path) -> None:
    """Refuses a schedule that is not, byte for byte, the one in the last commit."""
    folder, name = str(path.parent), f"./{path.name}"
    shown = subprocess.run(["git", "-C", folder, "show", f"HEAD:{name}"], capture_output=True, check=False)
    if shown.returncode or not path.is_file() or shown.stdout != path.read_bytes():
        raise DataError(f"`{path}` is not the committed schedule", "commit it before recording")


def record(schedule: Schedule, schedule_file: Path, folder: Path) -> None:
    """Records and writes `trace.parquet` and `recording.json` (what was done and seen) into `folder`."""
    with tempfile.TemporaryDirectory(prefix="ocad-recording-") as scratch:
        rows, about = Recorder(schedule, schedule_file, Path(scratch)).record()
    rows.to_parquet(folder / "trace.parquet", index=False, compression="zstd")
    about |= {"rows": len(rows), "by_kind": summarise(rows)}
    (folder / "recording.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    plot(rows, folder / "trace.png")
    print(json.dumps(about["by_kind"], indent=1))


def summarise(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows, losses and quantiles in µs, outside incidents and for each kind."""
    table = []
    for kind, part in rows.groupby("kind"):
        measured = part["udp_echo"].dropna().astype("float64")
        row = {"kind": str(kind) or "normal", "rows": len(part), "lost": len(part) - len(measured)}
        levels = (5, 50, 95, 99) if len(measured) else ()
        table.append(row | {f"p{level}": round(float(measured.quantile(level / 100)), 1) for level in levels})
    return table


def plot(rows: pd.DataFrame, path: Path) -> None:
    """The whole trace, incidents shaded by kind."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    seconds = (rows["timestamp"] - rows["timestamp"].iloc[0]).dt.total_seconds().to_numpy()
    figure, axes = plt.subplots(figsize=(12, 4), layout="constrained")
    axes.plot(seconds, rows["udp_echo"].to_numpy() / 1000, linewidth=0.3, color="black")
    for kind, colour in {"congestion": "tab:orange", "burst": "tab:red", "flap": "tab:blue"}.items():
        inside = (rows["kind"] == kind).to_numpy()
        axes.fill_between(seconds, 0, 1, where=inside, transform=axes.get_xaxis_transform(), color=colour, alpha=0.4)
        axes.plot([], [], color=colour, alpha=0.4, linewidth=6, label=kind)
    axes.set(xlabel="seconds", ylabel="round-trip time (ms)", yscale="log", title="UDP echo over the testbed")
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=90)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--plan", action="store_true", help="write the schedule")
    action.add_argument("--record", action="store_true", help="record by the committed schedule")
    action.add_argument("--rehearse", type=float, metavar="SECONDS", help="a short recording by a schedule of its own")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where --plan and --rehearse write")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
