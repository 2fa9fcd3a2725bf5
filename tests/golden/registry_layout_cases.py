"""Golden cases about what lies where: files, links, aliases, tombstones, names, external data."""

from __future__ import annotations

import json
import shutil

from tests.golden.registry_case import (
    FAILED_GATE,
    WEIGHTS,
    Case,
    Files,
    case,
    manifest,
    network,
    network_files,
    text,
)


@case
def valid(c: Case) -> None:
    """Two models, releases and a pre-release, a failed version, aliases with every kind of entry, external data, queries."""
    c.version("tcn-udp_echo@1.0.0", 1, network_files())
    c.version("tcn-udp_echo@1.1.0", 2, network_files(), metrics={"val_loss": 0.0625, "skill": 0.5})
    c.version("tcn-udp_echo@1.2.0", 3, gates=[FAILED_GATE], passed=False)
    c.version("tcn-udp_echo@1.10.0-rc.1", 4, params={"epochs": 60, "in": True})
    parent = {"ref": "tcn-udp_echo@1.0.0", "metadata_sha256": c.digests["tcn-udp_echo@1.0.0"]}
    plugin = {"name": "composite", "version": "0.2.0", "package": "ocad"}
    c.version(
        "radar@0.1.0", 5, plugin=plugin, task="detect", metric=None, signature=None, parity=None, parents=[parent]
    )
    c.entry("tcn-udp_echo@production", 1, "tcn-udp_echo@1.0.0")
    c.entry("tcn-udp_echo@production", 2, "tcn-udp_echo@1.2.0", forced=True, reason="the old one is worse")
    c.entry("tcn-udp_echo@production", 3, "tcn-udp_echo@1.0.0", "rollback")
    c.entry("tcn-udp_echo@canary", 1, "tcn-udp_echo@1.0.0")
    c.entry("tcn-udp_echo@old", 1, "tcn-udp_echo@1.0.0")
    c.entry("tcn-udp_echo@old", 2, None, "unset")
    c.lists("radar@0.1.0")
    c.lists("tcn-udp_echo@1.10.0-rc.1")
    c.lists("tcn-udp_echo@1.2.0", passed=False)
    c.lists("tcn-udp_echo@1.1.0")
    c.lists("tcn-udp_echo@1.0.0", "canary", "production")
    c.points("tcn-udp_echo@production", "1.0.0")
    c.points("tcn-udp_echo@old", "!not-found")
    answers = {"tcn-udp_echo": "1.0.0", "tcn-udp_echo@v1.1.0": "1.1.0", "tcn-udp_echo@1.10.0-rc.1": "1.10.0-rc.1"}
    errors = {
        "radar@9.0.0": "!not-found",
        "radar@stage": "!not-found",
        "nothing": "!not-found",
        "tcn@1.0": "!invalid-name",
    }
    more = {"TCN": "!invalid-name", "tcn@": "!invalid-name", "tcn@1.0.0+b": "!invalid-name", "a@b@c": "!invalid-name"}
    c.resolves(**answers, **errors, **more, **{"radar": "0.1.0", "tcn-udp_echo@canary": "1.0.0"})
    _valid_queries(c)


def _valid_queries(c: Case) -> None:
    radar, candidate, failed, second, first = (line["ref"] for line in c.expected["list"])
    c.query("task = 'forecast' and metrics.val_loss < 0.1", second)
    c.query("plugin = 'composite'", radar)
    c.query("plugin.name != 'tcn'", radar)
    c.query("version >= '1.2.0'", candidate, failed)
    c.query("version = 'v1.2.0'", failed)
    c.query("aliases = 'production'", first)
    c.query("files.role = 'onnx'", second, first)
    c.query("metric is null", radar)
    c.query("metric != 'udp_echo'")
    c.query("not metric != 'udp_echo'", radar, candidate, failed, second, first)
    c.query('metrics["val.auc"] = 5e-1', radar, candidate, failed, first)
    c.query('params["in"] = TRUE or passed = false', candidate, failed)
    c.query("params.channels = 32 and not (name like 'tcn%')", radar)
    c.query("name like 'tcn\\_udp%'")
    c.query("name like 'tcn-udp\\_____' and params.epochs in (60, 90)", candidate)
    c.query("metric not in ('ecpri')", radar, candidate, failed, second, first)
    c.query("params.note is null and params.epochs is not null and created_at >= '2026-01-04'", radar, candidate)
    c.query("metrics.val_loss = 'small'")
    c.query("parents.ref = 'tcn-udp_echo@1.0.0' and data = 'udp_echo'", radar)
    c.query("passed < true")
    for wrong in (
        "",
        "task =",
        "task = forecast",
        "metrcs.val_loss < 1",
        "version > '1'",
        "task = 'a' task",
        "name like 'a\\b'",
    ):
        c.query(wrong, "!")


@case
def missing_file(c: Case) -> None:
    """A payload file is gone: the version is listed and resolves, reading it fails."""
    c.version("m@1.0.0")
    (c.root / "m/1.0.0/weights.bin").unlink()
    c.lists("m@1.0.0")
    c.damaged("m@1.0.0", "missing-file")
    c.resolves(m="1.0.0")


@case
def payload_flipped(c: Case) -> None:
    """One byte of a payload file differs; another file is too long."""
    c.version("m@1.0.0")
    c.write("m/1.0.0/weights.bin", b"W" + WEIGHTS[1:])
    c.version("m@1.1.0", 2)
    c.write("m/1.1.0/weights.bin", WEIGHTS + b"!")
    c.lists("m@1.1.0")
    c.lists("m@1.0.0")
    c.damaged("m@1.1.0", "size")
    c.damaged("m@1.0.0", "digest")


@case
def symlink(c: Case) -> None:
    """Symlinks below the root are never followed: as payload, folder on the way, metadata, its digest, version, model."""
    for number in range(5):
        files = {"a/b.bin": ("weights", WEIGHTS)} if number == 1 else None
        c.version(f"m@1.{number}.0", 9 - number, files)
    c.version("m@2.0.0", 1)
    (c.root / "m/1.0.0/weights.bin").unlink()
    (c.root / "m/1.4.0/metadata.sha256").unlink()
    shutil.move(c.root / "m/1.1.0/a", c.root / "m/1.1.0/c")
    (c.root / "m/1.2.0/metadata.json").unlink()
    shutil.rmtree(c.root / "m/1.3.0")
    c.expected["setup"] = [
        {"symlink": "m/1.0.0/weights.bin", "target": "../2.0.0/weights.bin"},
        {"symlink": "m/1.1.0/a", "target": "c"},
        {"symlink": "m/1.2.0/metadata.json", "target": "../2.0.0/metadata.json"},
        {"symlink": "m/1.3.0", "target": "2.0.0"},
        {"symlink": "m/1.4.0/metadata.sha256", "target": "../2.0.0/metadata.sha256"},
        {"symlink": "n", "target": "m"},
    ]
    c.lists("m@1.0.0")
    c.lists("m@1.1.0")
    c.lists("m@2.0.0")
    c.broken("m@1.4.0", "metadata-digest")
    c.broken("m@1.3.0", "symlink")
    c.broken("m@1.2.0", "symlink")
    c.damaged("m@1.0.0", "symlink")
    c.damaged("m@1.1.0", "symlink")
    c.finds("n", "warning", "stray")
    c.resolves(**{"m": "2.0.0", "m@1.0.0": "1.0.0", "m@1.3.0": "!symlink", "n": "!not-found", "n@2.0.0": "!symlink"})


@case
def external_data(c: Case) -> None:
    """An ONNX whose weights lie in a file that is not listed, or outside; one that is no protobuf; one without a location."""
    graphs = [
        network("other.data"),
        network("../1.9.0/model.onnx.data"),
        network("/etc/hostname"),
        network("./model.onnx.data"),
    ]
    for number, graph in enumerate([*graphs, network(""), network()[:-7], b""]):
        c.version(f"m@1.{number}.0", 9 - number, network_files(graph))
        c.lists(f"m@1.{number}.0")
        c.damaged(f"m@1.{number}.0", "external-data" if number < 4 else "bad-onnx")
    c.write("m/1.0.0/other.data", b"\0" * 16)
    nested: Files = {f"graph/{path}": content for path, content in network_files().items()}
    c.version("m@2.0.0", 1, nested)
    c.lists("m@2.0.0")


@case
def alias_gap(c: Case) -> None:
    """The highest number wins, gaps or not; seven digits follow 999999; what is no entry is ignored."""
    for number in range(3):
        c.version(f"m@1.{number}.0", 9 - number)
    c.entry("m@production", 1, "m@1.0.0")
    c.entry("m@production", 4, "m@1.1.0")
    c.write("m/aliases/production/000005.json.tmp", b"half")
    c.write("m/aliases/production/000000.json", b"{}")
    c.entry("m@big", 999999, "m@1.0.0", moved_at="")
    c.entry("m@big", 1000000, "m@1.2.0", moved_at="", future_field=1)
    c.lists("m@1.0.0")
    c.lists("m@1.1.0", "production")
    c.lists("m@1.2.0", "big")
    c.points("m@production", "1.1.0")
    c.points("m@big", "1.2.0")
    c.finds("m@production", "warning", "alias-gap")
    c.finds("m@big", "warning", "alias-gap")
    c.finds("m/aliases/production/000005.json.tmp", "warning", "stray")
    c.finds("m/aliases/production/000000.json", "warning", "stray")
    c.resolves(**{"m": "1.1.0", "m@big": "1.2.0"})


@case
def alias_leap(c: Case) -> None:
    """An entry that leaps more than a million ahead is none, nor is what follows it: no number is ever the last one."""
    for number in range(3):
        c.version(f"m@1.{number}.0", 9 - number)
    c.entry("m@production", 1, "m@1.0.0", moved_at="")
    c.entry("m@production", 999999999999999, "m@1.2.0", moved_at="")
    c.entry("m@far", 1000000, "m@1.1.0", moved_at="")
    c.entry("m@far", 2000000, "m@1.2.0", moved_at="")
    c.entry("m@far", 3000001, "m@1.0.0", moved_at="")
    c.entry("m@far", 3000002, "m@1.0.0", moved_at="")
    c.entry("m@never", 1000001, "m@1.0.0", moved_at="")
    c.lists("m@1.0.0", "production")
    c.lists("m@1.1.0")
    c.lists("m@1.2.0", "far")
    c.points("m@production", "1.0.0")
    c.points("m@far", "1.2.0")
    c.points("m@never", "!not-found")
    c.finds("m@far", "warning", "alias-gap")
    for entry in ("production/999999999999999", "far/3000001", "far/3000002", "never/1000001"):
        c.finds(f"m/aliases/{entry}.json", "warning", "stray")
    c.resolves(**{"m": "1.0.0", "m@far": "1.2.0", "m@never": "!not-found"})


@case
def alias_damaged(c: Case) -> None:
    """An unreadable highest entry fails its alias and no other; an unreadable older one does no harm."""
    c.version("m@1.0.0")
    c.version("m@1.1.0", 2)
    good = json.loads(text({"kind": "promote", "version": "1.0.0", "metadata_sha256": c.digests["m@1.0.0"]}))
    rest = {"moved_at": "", "by": "", "reason": "", "forced": False}
    damage: dict[str, bytes] = {
        "empty": b"",
        "cut": text(good | rest)[:50],
        "kind": text(good | rest | {"kind": "move"}),
        "absent": text(good),
        "version": text(good | rest | {"version": "v1.0.0"}),
        "unset": text(good | rest | {"kind": "unset"}),
        "digest": text(good | rest | {"metadata_sha256": None}),
        "forced": text(good | rest | {"forced": 0}),
    }
    for alias, data in damage.items():
        c.entry(f"m@{alias}", 1, "m@1.1.0")
        c.write(f"m/aliases/{alias}/000002.json", data)
        c.points(f"m@{alias}", "!bad-alias-entry")
        c.finds(f"m@{alias}", "error", "bad-alias-entry")
    c.write("m/aliases/production/000001.json", b"")
    c.entry("m@production", 2, "m@1.0.0")
    c.finds("m@production", "error", "bad-alias-entry")
    c.points("m@production", "1.0.0")
    c.lists("m@1.1.0")
    c.lists("m@1.0.0", "production")
    c.resolves(**{"m": "1.0.0", "m@empty": "!bad-alias-entry"})


@case
def alias_target(c: Case) -> None:
    """An alias whose version is another one than it was given, or gone without a tombstone."""
    c.version("m@1.0.0")
    c.entry("m@swapped", 1, "m@1.0.0", metadata_sha256="1" * 64)
    c.entry("m@lost", 1, "m@1.5.0")
    c.lists("m@1.0.0", "swapped")
    c.points("m@swapped", "!alias-digest")
    c.points("m@lost", "!not-found")
    c.finds("m@swapped", "error", "alias-digest")
    c.finds("m@lost", "error", "missing-version")
    c.resolves(**{"m@swapped": "1.0.0", "m@lost": "!not-found"})


@case
def tombstone(c: Case) -> None:
    """A tombstone wins, whatever it holds: over its version, over alias entries; the entry below decides then."""
    for number in range(3):
        c.version(f"m@1.{number}.0", 9 - number)
    for version in ("1.2.0", "1.1.0", "1.7.0"):
        c.write(f"m/deleted/{version}.json", b"")
    c.entry("m@production", 1, "m@1.0.0")
    c.entry("m@production", 2, "m@1.1.0")
    c.entry("m@production", 3, "m@1.2.0")
    c.entry("m@gone", 1, "m@1.2.0")
    c.entry("m@ended", 1, "m@1.0.0")
    c.entry("m@ended", 2, None, "unset")
    c.entry("m@ended", 3, "m@1.2.0")
    c.lists("m@1.0.0", "production")
    c.points("m@production", "1.0.0")
    c.points("m@gone", "!not-found")
    c.points("m@ended", "!not-found")
    c.resolves(**{"m": "1.0.0", "m@1.1.0": "!not-found", "m@1.7.0": "!not-found"})


@case
def illegal_names(c: Case) -> None:
    """Names outside the grammar are ignored, and `verify` says so; folders without metadata are no versions."""
    c.version("m@1.0.0")
    c.version("m@1.0.0-0a.x-y", 2)
    for version in ("v1.1.0", "1.1", "01.1.0", "1.2.0+build", "1.2.0-01", "1.2.0-", "1000000000000000.0.0", "latest"):
        c.write(f"m/{version}/metadata.json", text(manifest(f"m@{version}", 1, {})))
        c.finds(f"m/{version}", "warning", "stray")
    for name in ("Upper", "_m", "a b", "m@x", "ü"):
        c.write(f"{name}/1.0.0/metadata.json", text(manifest(f"{name}@1.0.0", 1, {})))
        c.finds(name, "warning", "stray")
    for alias in ("Prod", "1st", "a_b"):
        c.write(f"m/aliases/{alias}/000001.json", b"{}")
        c.finds(f"m/aliases/{alias}", "warning", "stray")
    c.write("m/deleted/latest.json", b"{}")
    c.finds("m/deleted/latest.json", "warning", "stray")
    c.write("m/1.5.0/weights.bin", WEIGHTS)
    c.finds("m@1.5.0", "warning", "incomplete")
    c.write("m/1.0.0/surplus.bin", WEIGHTS)
    c.finds("m@1.0.0", "warning", "unlisted-file")
    c.lists("m@1.0.0-0a.x-y")
    c.lists("m@1.0.0")
    c.resolves(**{"m": "1.0.0", "m@1.5.0": "!not-found", "m@latest": "!not-found", "Upper": "!invalid-name"})
