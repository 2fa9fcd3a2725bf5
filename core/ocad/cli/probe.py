"""`ocad probe`: measures a link."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ocad.cli.output import emit, note, output_options
from ocad.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from ocad.probe.udp_echo import EchoCounts, EchoProbe


@click.group()
def probe() -> None:
    """Measure a link: round-trip times in µs."""


@probe.command("udp-echo")
@click.option("--target", metavar="HOST:PORT", help="Measure against the responder there.")
@click.option("--respond", type=click.IntRange(0, 65_535), metavar="PORT", help="Be the responder on PORT (0: any).")
@click.option("--rate", type=float, default=10.0, show_default=True, help="Datagrams a second.")
@click.option("--duration", type=float, default=60.0, show_default=True, help="Seconds to measure.")
@click.option("--timeout", type=float, default=1.0, show_default=True, help="Seconds after which a reply is lost.")
@click.option("--bind", metavar="ADDRESS", help="Local address (default: any; 127.0.0.1 with `--respond`).")
@click.option("--out", type=click.Path(path_type=Path), help="Write the rows there (.parquet or .csv).")
@output_options
def udp_echo(
    *,
    target: str | None,
    respond: int | None,
    rate: float,
    duration: float,
    timeout: float,
    bind: str | None,
    out: Path | None,
) -> None:
    """Round-trip times in µs by UDP echo (RFC 862); Ctrl-C ends early and keeps what was measured.

    A row has the UTC time of sending, the round-trip time (NaN when lost) and the sequence number.
    """
    from ocad.probe.udp_echo import EchoProbe, parse_target

    if (target is None) == (respond is None):
        raise UsageError("`udp-echo` needs either `--target` or `--respond`", "give one of the two")
    if target is None:
        _respond(respond or 0, bind or "127.0.0.1")
        return
    if out is not None:
        _check_output(out)
    measurement = EchoProbe(parse_target(target), rate, duration, timeout, bind or "")
    with contextlib.suppress(KeyboardInterrupt):
        measurement.run()
    if out is not None:
        write_rows(measurement.frame(), out)
    _report(measurement, target, out)


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Writes `rows` as parquet or CSV by the suffix of `path`, which appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        if path.suffix == ".csv":
            rows.to_csv(unfinished, index=False)
        else:
            rows.to_parquet(unfinished, index=False, compression="zstd")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DataError(f"cannot write `{path}` ({error.strerror})", "check the folder and the free space") from None


def _respond(port: int, bind: str) -> None:
    from ocad.probe.udp_echo import Responder

    responder = Responder(port, bind)
    address = "{}:{}".format(*responder.address)
    note(f"answering UDP echo on {address}; Ctrl-C ends")
    with contextlib.suppress(KeyboardInterrupt):
        responder.run()
    emit({"address": address, "echoed": responder.echoed}, f"echoed {responder.echoed} datagrams")


def _check_output(out: Path) -> None:
    if out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"cannot tell the format of `{out}`", "end its name in `.parquet` or `.csv`")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder `{out.parent}` to write to", "create it first")


def _report(measurement: EchoProbe, target: str, out: Path | None) -> None:
    counts = measurement.counts
    quantiles = _quantiles(measurement.frame())
    value: dict[str, Any] = {"target": target, **counts.as_dict(), "udp_echo_us": quantiles}
    emit({**value, "output": str(out) if out else None}, lambda: _summary(counts, quantiles))


def _quantiles(rows: pd.DataFrame) -> dict[str, float] | None:
    measured = rows["udp_echo"].dropna()
    if measured.empty:
        return None
    return {f"p{level}": round(float(measured.quantile(level / 100)), 3) for level in (0, 50, 90, 99, 100)}


def _summary(counts: EchoCounts, quantiles: dict[str, float] | None) -> str:
    times = ", ".join(f"{name} {value:.0f}" for name, value in (quantiles or {}).items()) or "none measured"
    happened = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.as_dict().items() if count)
    return f"{happened or 'nothing sent'}; round-trip time in µs: {times}"
