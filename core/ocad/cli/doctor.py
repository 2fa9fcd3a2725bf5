"""`ocad doctor`: what is here, what is missing and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any

import click

from ocad.cli.options import open_registry, registry_option
from ocad.cli.output import emit, output_options, table


@click.command()
@registry_option
@output_options
def doctor(registry: str | None) -> int:
    """Show versions, cores, memory, plugins, data and registry health; exit 1 when something needs attention."""
    checks = [*_machine(), *_packages(), *_plugins(), *_data(), *_registry(registry)]
    emit(checks, lambda: table(("check", "state", "value", "advice"), [list(row.values()) for row in checks]))
    return 1 if any(row["state"] == "attention" for row in checks) else 0


def _row(check: str, value: object, state: str = "ok", advice: str = "") -> dict[str, Any]:
    return {"check": check, "state": state, "value": str(value), "advice": advice}


def _machine() -> list[dict[str, Any]]:
    from ocad.evidence import usable_cores

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = shutil.disk_usage(".").free / 2**30
    low = free < 1
    return [
        _row("python", platform.python_version()),
        _row("platform", platform.platform()),
        _row("cores", usable_cores()),
        _row("memory", f"{memory:.1f} GiB"),
        _row("disk here", f"{free:.1f} GiB free", "attention" if low else "ok", "free some space" if low else ""),
    ]


def _packages() -> list[dict[str, Any]]:
    from ocad.evidence import PACKAGES, package_versions

    found = package_versions()
    return [
        _row(package, found[package])
        if package in found
        else _row(package, "missing", "attention", "run `make setup`, or `pip install ocad`")
        for package in PACKAGES
    ]


def _plugins() -> list[dict[str, Any]]:
    from ocad.host import Host, Plugin

    warnings: list[str] = []
    host = Host(warn=warnings.append)
    rows = [
        _row(f"plugin {entry.name}", found.package)
        if isinstance(found, Plugin)
        else _row(f"plugin {entry.name}", found.message, "attention", found.hint)
        for entry, found in host.survey()
    ]
    rows += [_row(f"extension {guest.name}", guest.package) for guest in host.extensions]
    return rows + [_row("extension", line, "attention", "correct or uninstall it") for line in warnings]


def _data() -> list[dict[str, Any]]:
    from ocad.catalogue import list_data

    rows = []
    for source in list_data():
        missing = source.missing()
        rows.append(_row(f"data {source.name}", missing or source.path, "absent" if missing else "ok"))
    return rows


def _registry(root: str | None) -> list[dict[str, Any]]:
    from ocad_registry import NotFound

    store = open_registry(root)
    try:
        store.require()
    except NotFound as error:
        return [_row("registry", error.message, "absent", "the first `ocad train` makes it")]
    entries = store.list()
    broken = [entry for entry in entries if entry.broken]
    rows = [_row("registry", f"{store.root}: {len(entries)} versions of {len(store.models())} models")]
    advice = "see `ocad registry verify`"
    return rows + [_row(f"version {entry.ref}", entry.broken, "attention", advice) for entry in broken]
