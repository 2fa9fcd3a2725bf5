"""`ocad probe`: measures a link."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from ocad.cli.output import emit, output_options
from ocad.cli.probing import OpenRows, guard_options, measure, pace_options, require_one, respond, row_options
from ocad.errors import UsageError
from ocad.probe.ccm import PERIODS

if TYPE_CHECKING:
    from ocad.probe.channel import Channel
    from ocad.probe.measurement import Pace
    from ocad.probe.responder import Guard


@click.group()
def probe() -> None:
    """Measure a link: round-trip times and one-way delays in µs, and the share of missed continuity checks."""


@probe.command("udp-echo")
@click.option("--target", metavar="HOST:PORT", help="Measure against the responder there.")
@click.option(
    "--respond", "port", type=click.IntRange(0, 65_535), metavar="PORT", help="Be the responder on PORT (0: any)."
)
@click.option("--bind", metavar="ADDRESS", help="Local address (default: any; 127.0.0.1 with `--respond`).")
@guard_options
@pace_options
@row_options
@output_options
def udp_echo(
    *,
    target: str | None,
    port: int | None,
    bind: str | None,
    guard: Guard,
    pace: Pace,
    open_rows: OpenRows,
) -> None:
    """Round-trip times in µs by UDP echo (RFC 862); Ctrl-C ends early and keeps what was measured.

    A row has the UTC time of sending, the round-trip time (NaN when lost) and the sequence number.
    """
    from ocad.probe.channel import parse_target
    from ocad.probe.udp_echo import METRIC, echo_probe, echo_responder

    require_one("udp-echo", target=target, respond=port)
    if target is None:
        responder, address = echo_responder(port or 0, bind or "127.0.0.1", guard)
        respond(responder, "UDP echo", "{}:{}".format(*address), "echoed")
        return
    rows = open_rows(METRIC)
    measure(echo_probe(parse_target(target), pace, rows.add, bind or ""), target, rows)


@probe.command()
@click.option("--target", metavar="MAC|HOST:PORT", help="Measure against the responder there.")
@click.option("--respond", "responds", is_flag=True, help="Be the responder.")
@click.option("--interface", metavar="NAME", help="Send Ethernet frames on this interface.")
@click.option("--bind", metavar="HOST:PORT", help="Respond over UDP on this local address.")
@guard_options
@pace_options
@row_options
@output_options
def ecpri(
    *,
    target: str | None,
    responds: bool,
    interface: str | None,
    bind: str | None,
    guard: Guard,
    pace: Pace,
    open_rows: OpenRows,
) -> None:
    """One-way delays in µs by eCPRI message type 5, over Ethernet or UDP; the clocks of both ends must agree.

    A row has the UTC time of sending, the delay (NaN when lost) and the request's number.
    """
    from ocad.probe.ecpri import METRIC, delay_probe
    from ocad.probe.ecpri import respond as answer
    from ocad.probe.responder import Responder

    require_one("ecpri", target=target, respond=responds or None)
    _refuse_networks(guard, interface)
    if target is None:
        responder = Responder(_ecpri_channel(None, interface, bind), answer, guard)
        respond(responder, "eCPRI delay requests", interface or bind or "")
        return
    rows = open_rows(METRIC)
    measure(delay_probe(_ecpri_channel(target, interface, None), pace, rows.add), target, rows)


@probe.command()
@click.option("--target", metavar="MAC", help="Measure against the responder there.")
@click.option("--respond", "responds", is_flag=True, help="Be the responder.")
@click.option("--interface", required=True, metavar="NAME", help="Send Ethernet frames on this interface.")
@click.option("--level", type=click.IntRange(0, 7), default=0, show_default=True, help="Maintenance domain level.")
@guard_options
@pace_options
@row_options
@output_options
def lbm(
    *,
    target: str | None,
    responds: bool,
    interface: str,
    level: int,
    guard: Guard,
    pace: Pace,
    open_rows: OpenRows,
) -> None:
    """Round-trip times in µs by Ethernet loopback (LBM and LBR of IEEE 802.1ag, ITU-T Y.1731).

    A row has the UTC time of sending, the round-trip time (NaN when lost) and the message's number.
    """
    from ocad.probe import cfm
    from ocad.probe.ethernet import EthernetChannel, parse_mac
    from ocad.probe.lbm import METRIC, loopback_answer, loopback_probe
    from ocad.probe.responder import Responder

    require_one("lbm", target=target, respond=responds or None)
    _refuse_networks(guard, interface)
    if target is None:
        channel = EthernetChannel(interface, cfm.ETHERTYPE, cfm.Opcode.LBM)
        respond(Responder(channel, loopback_answer(level), guard), "loopback messages", interface)
        return
    rows = open_rows(METRIC)
    channel = EthernetChannel(interface, cfm.ETHERTYPE, cfm.Opcode.LBR, parse_mac(target))
    measure(loopback_probe(channel, pace, rows.add, level), target, rows)


@probe.command()
@click.option("--send", "sends", is_flag=True, help="Send the messages; without it, watch for them.")
@click.option("--interface", required=True, metavar="NAME", help="The Ethernet interface.")
@click.option(
    "--interval", type=click.Choice(list(PERIODS)), default="10ms", show_default=True, help="Between two messages."
)
@click.option("--report", type=float, default=0.5, show_default=True, help="Seconds per row.")
@click.option("--duration", type=float, default=60.0, show_default=True, help="Seconds to send or to watch.")
@click.option("--level", type=click.IntRange(0, 7), default=0, show_default=True, help="Maintenance domain level.")
@click.option("--mepid", type=int, default=1, show_default=True, help="The sender's end point identifier.")
@row_options
@output_options
def ccm(
    *,
    sends: bool,
    interface: str,
    interval: str,
    report: float,
    duration: float,
    level: int,
    mepid: int,
    open_rows: OpenRows,
) -> None:
    """Share of missed continuity checks (CCM of IEEE 802.1ag, ITU-T Y.1731), 0 to 1.

    A row has the UTC time at which its interval began, the share of the expected messages missed in it, and its number.
    """
    from ocad.probe import cfm
    from ocad.probe.ccm import METRIC, Association, Monitor, Sender, group_address
    from ocad.probe.ethernet import EthernetChannel

    rows = open_rows(METRIC)
    association = Association(interval, level, mepid)
    group = group_address(level)
    if sends:
        if rows.out is not None:
            raise UsageError("`ccm --send` measures nothing to write to `--out`", "leave one of the two out")
        sender = Sender(EthernetChannel(interface, cfm.ETHERTYPE, cfm.Opcode.CCM, peer=group), association, duration)
        with contextlib.suppress(KeyboardInterrupt):
            sender.run()
        emit({"sent": sender.sent, "send_errors": sender.errors}, f"sent {sender.sent} messages")
        return
    channel = EthernetChannel(interface, cfm.ETHERTYPE, cfm.Opcode.CCM, group=group)
    measure(Monitor(channel, association, duration, report, rows.add), interface, rows)


def _refuse_networks(guard: Guard, interface: str | None) -> None:
    if guard.allow and interface is not None:
        raise UsageError("`--allow` names IP networks, and frames come from MAC addresses", "leave one of the two out")


def _ecpri_channel(target: str | None, interface: str | None, bind: str | None) -> Channel:
    """Ethernet when there is an interface, else UDP."""
    from ocad.probe.channel import UdpChannel, parse_target
    from ocad.probe.ecpri import ETHERTYPE, MESSAGE_TYPE
    from ocad.probe.ethernet import MAC_FORM, EthernetChannel, parse_mac

    if interface is not None:
        return EthernetChannel(interface, ETHERTYPE, MESSAGE_TYPE, parse_mac(target) if target else None)
    if target is not None and MAC_FORM.fullmatch(target):
        raise UsageError(f"the target `{target}` is a MAC address, and there is no interface", "give `--interface`")
    if target is not None:
        return UdpChannel(parse_target(target), ("", 0))
    if bind is None:
        raise UsageError("`ecpri --respond` needs `--interface` or `--bind`", "give one of the two")
    return UdpChannel(None, parse_target(bind))
