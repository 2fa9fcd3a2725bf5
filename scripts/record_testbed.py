"""Records the project's own measurements: four metrics of four veth links between network namespaces, with incidents.

python scripts/record_testbed.py --calibrate 900   a recording to choose the incidents' levels by, to be thrown away
python scripts/record_testbed.py --plan            writes data/oran_testbed/schedule.json; commit it
python scripts/record_testbed.py --record          records by the committed schedule (root; two hours)
python scripts/record_testbed.py --assemble        writes the rows of a recording that was cut short
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad.errors import DataError, OcadError
from ocad.probe.recording import Recorder, assemble
from ocad.probe.schedule import KINDS, IncidentKind, make_schedule, read_schedule
from ocad.probe.steps import METRICS, measured_sizes

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "oran_testbed"
SEED = 20_261_122
DURATION_S = 7_200.0
SLOTS = 65
"""Incidents on each link; 26 of them in the last 40 % of the time, the test part."""
SIZES: dict[IncidentKind, tuple[float, ...]] = {
    "congestion": (0.55, 0.62, 0.75, 0.95),
    "burst": (0.5, 0.54, 0.65, 0.85),
    "busy": (0.65, 0.58, 0.45, 0.3),
    "loss": (0.05, 0.1, 0.2, 0.4),
    "flap": (0.0,),
}
"""Levels chosen from a calibration recording so that about half of the incidents measure no more than 6 noise units."""
CALIBRATION_SLOT_S = 30.0


def main(arguments: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated recording removes its namespaces
    options = _parser().parse_args(arguments)
    schedule_file = options.folder / "schedule.json"
    try:
        if options.plan:
            write_plan(schedule_file)
            return 0
        if options.calibrate:
            if options.folder.resolve() == FOLDER:
                raise DataError("a calibration would overwrite the recording", "give it another `--folder`")
            slots = max(len(KINDS), int(options.calibrate // CALIBRATION_SLOT_S))
            schedule_file.write_text(
                make_schedule(SEED + 1, options.calibrate, SIZES, slots).to_json(), encoding="utf-8"
            )
        else:
            require_committed(schedule_file)
        schedule = read_schedule(schedule_file)
        if options.assemble:
            write(*assemble(schedule, options.raw), options.folder)
        else:
            options.raw.mkdir(parents=True, exist_ok=True)
            write(*Recorder(schedule, schedule_file, options.raw, say).record(), options.folder)
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
    schedule = make_schedule(SEED, DURATION_S, SIZES, SLOTS)
    path.write_text(schedule.to_json(), encoding="utf-8")
    print(f"wrote {path}: {schedule.duration_s:.0f} s, {len(schedule.links)} links of {SLOTS} incidents; commit it")


def require_committed(path: Path) -> None:
    """Refuses a schedule that is not, byte for byte, the one in the last commit."""
    folder, name = str(path.parent), f"./{path.name}"
    shown = subprocess.run(["git", "-C", folder, "show", f"HEAD:{name}"], capture_output=True, check=False)
    if shown.returncode or not path.is_file() or shown.stdout != path.read_bytes():
        raise DataError(f"`{path}` is not the committed schedule", "commit it before recording")


def write(rows: pd.DataFrame, about: dict[str, Any], folder: Path) -> None:
    """Writes `trace.parquet`, `recording.json` (what was done and seen) and a plot into `folder`."""
    rows.to_parquet(folder / "trace.parquet", index=False, compression="zstd")
    about["incidents"] = measured_sizes(rows, about["incidents"])
    about |= {"rows": len(rows), "by_kind": summarise(rows), "sizes": summarise_sizes(about["incidents"])}
    (folder / "recording.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    plot(rows, folder / "trace.png")
    print(json.dumps({name: about[name] for name in ("by_kind", "sizes")}, indent=1))


def say(line: str) -> None:
    """Prints at once, so that a log can be followed."""
    print(line, flush=True)


def summarise(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows, prevalence, lost rows and quantiles of each metric, outside incidents and for each kind."""
    table = []
    for kind, part in rows.groupby("kind"):
        row: dict[str, Any] = {"kind": str(kind) or "normal", "rows": len(part)}
        for metric in METRICS:
            measured = part[metric].dropna().astype("float64")
            row[metric] = {"lost": len(part) - len(measured)}
            for level in (5, 50, 95, 99) if len(measured) else ():
                row[metric][f"p{level}"] = round(float(measured.quantile(level / 100)), 4)
        table.append(row)
    return table


def summarise_sizes(incidents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each kind and level: how many, their measured sizes in noise units (sorted), and the median `ccm` missed."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for incident in incidents:
        groups.setdefault((incident["kind"], incident["size"]), []).append(incident)
    table = []
    for (kind, size), members in sorted(groups.items()):
        sigmas = sorted(one["size_sigmas"] for one in members if one["size_sigmas"] is not None)
        missed = sorted(one["ccm"] for one in members)
        row = {"kind": kind, "size": size, "incidents": len(members), "sigmas": sigmas, "ccm": missed[len(missed) // 2]}
        table.append({**row, "at_most_6": sum(value <= 6 for value in sigmas)})
    return table


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Every link's three delays over the whole recording, incidents shaded by kind."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(KINDS, ("tab:orange", "tab:red", "tab:green", "tab:purple", "tab:blue"), strict=True))
    links = list(rows.groupby("endpoint"))
    figure, panels = plt.subplots(len(links), figsize=(14, 2.6 * len(links)), sharex=True, layout="constrained")
    for axes, (endpoint, link) in zip(panels, links, strict=True):
        minutes = (link["timestamp"] - link["timestamp"].iloc[0]).dt.total_seconds().to_numpy() / 60
        for metric in METRICS[:3]:
            axes.plot(minutes, link[metric].to_numpy() / 1000, linewidth=0.4, label=metric)
        for kind, colour in colours.items():
            inside = (link["kind"] == kind).to_numpy()
            axes.fill_between(
                minutes, 0, 1, where=inside, transform=axes.get_xaxis_transform(), color=colour, alpha=0.4
            )
            axes.plot([], [], color=colour, alpha=0.4, linewidth=6, label=kind)
        axes.set(ylabel=f"{endpoint} (ms)", yscale="log")
    panels[0].legend(loc="upper right", ncols=4, fontsize="x-small")
    panels[-1].set(xlabel="minutes")
    figure.savefig(path, dpi=80)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--plan", action="store_true", help="write the schedule")
    action.add_argument("--record", action="store_true", help="record by the committed schedule")
    action.add_argument("--assemble", action="store_true", help="the rows of a recording that was cut short")
    action.add_argument("--calibrate", type=float, metavar="SECONDS", help="a short recording by a schedule of its own")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the schedule stands and the results go")
    parser.add_argument("--raw", type=Path, default=ROOT / ".cache" / "recording", help="where the probes write")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
