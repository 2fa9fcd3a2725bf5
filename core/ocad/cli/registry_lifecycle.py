"""`ocad registry delete|gc|copy|diff|export|import|sign|keygen`: what is done with whole versions."""

from __future__ import annotations

import json
import re

import click

from ocad.cli.options import existing_registry, open_registry, registry_option
from ocad.cli.output import emit, note, output_options, table

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}


def seconds(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """A time such as `12h` or `7d` in seconds; `0` needs no unit. Raises a usage error for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])|0", text)
    if match is None:
        raise click.BadParameter(f"`{text}` is no time: give such as `12h` or `7d`")
    return float(match[1]) * _UNITS[match[2]] if match[2] else 0.0


@click.command()
@click.argument("reference")
@click.option("--reason", default="", help="Why; stays in the tombstone.")
@registry_option
@output_options
def delete(reference: str, reason: str, registry: str | None) -> None:
    """Delete the version REFERENCE (NAME@VERSION); its number never comes back, `gc` frees the space later."""
    tombstone = open_registry(registry).delete(reference, reason=reason)
    emit(tombstone.to_json(), f"{tombstone.ref} is deleted; `ocad registry gc` frees its space after the grace")


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed and why; remove nothing.")
@click.option(
    "--grace", callback=seconds, default="7d", show_default=True, help="How long deleted versions keep their files."
)
@registry_option
@output_options
def gc(dry_run: bool, grace: float, registry: str | None) -> None:
    """Remove the files of deleted versions, and what killed writers left behind."""
    found = existing_registry(registry).collect_garbage(grace=grace, dry_run=dry_run)
    done = "would remove" if dry_run else "removed"
    rows = [(done if one.due else "kept", one.path, one.kind, size(one.size), one.reason) for one in found]

    def text() -> str:
        if not rows:
            return "no garbage"
        freed = sum(one.size for one in found if one.due)
        return f"{table(('', 'path', 'kind', 'size', 'why'), rows)}\n{done} {size(freed)}"

    emit([one.to_json() for one in found], text)


@click.command()
@click.argument("reference")
@click.option("--to", "other", metavar="OTHER", required=True, help="The folder or URL of the registry to copy into.")
@click.option("--with-parents", is_flag=True, help="Copy what it was built from before it.")
@registry_option
@output_options
def copy(reference: str, other: str, with_parents: bool, registry: str | None) -> None:
    """Copy the version REFERENCE with its signatures into another registry, byte for byte; aliases stay behind."""
    copied = existing_registry(registry).copy(reference, open_registry(other), with_parents=with_parents)
    rows = [(one.ref, "copied" if one.copied else "was there", one.files, size(one.size)) for one in copied]
    emit([one.to_json() for one in copied], lambda: table(("version", "", "files", "size"), rows))


@click.command()
@click.argument("first")
@click.argument("second")
@registry_option
@output_options
def diff(first: str, second: str, registry: str | None) -> None:
    """Show what differs between two versions: data, params, metrics, gates, environment, files."""
    changes = open_registry(registry).diff(first, second)
    rows = [(one.section, one.name, _shown(one.first), _shown(one.second), one.delta) for one in changes]
    headings = ("what", "name", first, second, "difference")
    emit([one.to_json() for one in changes], lambda: table(headings, rows) if rows else "nothing differs")
    measured = next((one for one in changes if one.section == "metrics"), None)
    if measured and not measured.same_rows:
        doubt = "come" if measured.same_rows is False else "may come"
        note(
            f"the metrics {doubt} from different rows: `ocad compare {first} {second} --data …` measures both on the same"
        )


@click.command()
@click.argument("reference")
@click.argument("file", type=click.Path(dir_okay=False))
@registry_option
@output_options
def export(reference: str, file: str, registry: str | None) -> None:
    """Write the version REFERENCE with its signatures to the new tar FILE; the same version gives the same bytes."""
    store = open_registry(registry)
    version = store.resolve(reference)
    written = store.export(version.ref, file)
    answer = {"ref": version.ref, "metadata_sha256": version.metadata_sha256, "path": file, "size": written}
    emit(answer, f"{version.ref} -> {file} ({size(written)})")


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False))
@registry_option
@output_options
def import_archive(file: str, registry: str | None) -> None:
    """Take in the version in the tar FILE that `export` wrote; nothing of it is visible before all is verified."""
    imported = open_registry(registry).import_archive(file)
    emit(imported.to_json(), f"{imported.ref} {'is imported' if imported.copied else 'was there already'}")


@click.command()
@click.argument("reference")
@click.option("--key", required=True, type=click.Path(dir_okay=False), help="The secret ed25519 key, a PEM file.")
@registry_option
@output_options
def sign(reference: str, key: str, registry: str | None) -> None:
    """Sign the version REFERENCE, every byte of it verified."""
    signed = open_registry(registry).sign(reference, key)
    emit(signed.to_json(), f"{signed.ref} is signed by key {signed.key_id}")


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@output_options
def keygen(file: str) -> None:
    """Make an ed25519 key: the secret one in FILE, the public one in FILE.pub."""
    from ocad_registry.signing import create_key

    identifier = create_key(file)
    answer = {"key_id": identifier, "secret": file, "public": f"{file}.pub"}
    emit(answer, f"key {identifier}: keep {file} secret, give {file}.pub to those who verify")


@click.command()
@click.option("--fix", is_flag=True, help="Mend what this user may: group and mode of files and folders.")
@registry_option
@output_options
def doctor(fix: bool, registry: str | None) -> int:
    """Show what keeps users out of a registry in a folder: modes, groups, what cannot be read; exit 1 while there is any."""
    found = open_registry(registry).check_modes(fix=fix)
    rows = [(one.path, one.owner, one.found, one.wanted, one.fixed, one.reason) for one in found]
    headings = ("path", "owner", "mode", "wanted", "mended", "why")
    emit([one.to_json() for one in found], lambda: table(headings, rows) if rows else "everybody gets in who should")
    return 1 if any(not one.fixed for one in found) else 0


COMMANDS = (doctor, delete, gc, copy, diff, export, import_archive, sign, keygen)


def size(count: int) -> str:
    """Bytes for a person: `512 B`, `1.5 MB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _shown(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
