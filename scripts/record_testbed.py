"""Records the project's own measurements: four metrics of veth links between network namespaces, with incidents.

`--recording` names which of them (the first one if not given).

python scripts/record_testbed.py --calibrate 900   a recording to choose the incidents' levels by, to be thrown away
python scripts/record_testbed.py --plan            writes data/RECORDING/schedule.json; commit it
python scripts/record_testbed.py --record          records by the committed schedule (root; two hours)
python scripts/record_testbed.py --assemble        writes the rows of a recording that was cut short
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocad.errors import DataError, OcadError
from ocad.probe.recording import Recorder, assemble
from ocad.probe.schedule import KINDS, LINKS, IncidentKind, Link, Traffic, make_schedule, read_schedule
from ocad.probe.steps import METRICS, measured_sizes

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
CALIBRATION_SLOT_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recording's schedule is drawn from: `slots` incidents on each link, each of one of the sizes of its kind."""

    seed: int
    slots: int
    sizes: dict[IncidentKind, tuple[float, ...]]
    links: tuple[Link, ...] = LINKS
    duration_s: float = 7_200.0


PLANS = {
    # levels chosen from a calibration recording, so that about half should measure no more than 6 noise units
    "oran_testbed": Plan(
        seed=20_261_122,
        slots=65,  # 26 of them in the last 40 % of the time, the test part
        sizes={
            "congestion": (0.55, 0.62, 0.75, 0.95),
            "burst": (0.5, 0.54, 0.65, 0.85),
            "busy": (0.65, 0.58, 0.45, 0.3),
            "loss": (0.05, 0.1, 0.2, 0.4),
            "flap": (0.0,),
        },
    ),
    # the heaviest levels of the first are left out: milder as a whole, and nothing that the first did not show to be visible
    "oran_testbed_2": Plan(
        seed=20_261_130,
        slots=40,
        sizes={
            "congestion": (0.58, 0.62, 0.68, 0.75),
            "burst": (0.54, 0.6, 0.68, 0.76),
            "busy": (0.6, 0.54, 0.48, 0.4),
            "loss": (0.08, 0.12, 0.2, 0.3),
            "flap": (0.0,),
        },
    ),
    # what the first two lack: a slow drift, and a loss that comes and goes
    "oran_testbed_3": Plan(
        seed=20_261_131,
        slots=24,
        sizes={"drift": (0.75, 0.85, 0.95), "flapping_loss": (0.1, 0.2, 0.4), "burst": (0.6, 0.7)},
        links=(
            Link(endpoint="du3-ru5", rate_mbit=15, traffic=Traffic(base_share=0.25, day_s=1500.0)),
            Link(endpoint="du3-ru6", rate_mbit=25, traffic=Traffic(base_share=0.2, noise=0.2, mean_batch_packets=4.0)),
        ),
    ),
}
"""The recordings by their name, which is their folder's in `data/`."""


def main(arguments: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated recording removes its namespaces
    options = _parser().parse_args(arguments)
    plan = PLANS[options.recording]
    options.folder = options.folder or DATA / options.recording
    options.raw = options.raw or ROOT / ".cache" / "recording" / options.recording
    schedule_file = options.folder / "schedule.json"
    try:
        if options.plan:
            write_plan(schedule_file, plan)
            return 0
        if options.calibrate:
            if options.folder.resolve().parent == DATA:
                raise DataError("a calibration would overwrite the recording", "give it another `--folder`")
            slots = max(len(plan.sizes), int(options.calibrate // CALIBRATION_SLOT_S))
            schedule = make_schedule(plan.seed + 1, options.calibrate, plan.sizes, slots, plan.links)
            schedule_file.write_text(schedule.to_json(), encoding="utf-8")
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


def write_plan(path: Path, plan: Plan) -> None:
    """Writes the schedule; a schedule that stands is never replaced, so that none is drawn again until one pleases."""
    if path.exists():
        raise DataError(
            f"`{path}` exists", "a schedule is drawn once; remove it in a commit of its own to draw another"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    schedule = make_schedule(plan.seed, plan.duration_s, plan.sizes, plan.slots, plan.links)
    path.write_text(schedule.to_json(), encoding="utf-8")
    print(
        f"wrote {path}: {schedule.duration_s:.0f} s, {len(schedule.links)} links of {plan.slots} incidents; commit it"
    )


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

    colours = dict(zip(KINDS, matplotlib.color_sequences["tab10"], strict=False))
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
    parser.add_argument("--recording", choices=PLANS, default="oran_testbed", help="which recording")
    parser.add_argument("--folder", type=Path, help="where the schedule stands and the results go [data/RECORDING]")
    parser.add_argument("--raw", type=Path, help="where the probes write [.cache/recording/RECORDING]")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
