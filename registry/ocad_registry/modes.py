"""Who may write: the modes of a registry in a folder, and what is to be mended about those that exist.

Everybody may read. Where ROOT is writable for its group, or `registry.json` says `"shared": "group"`, so are the folders
below, and they hand the group on (setgid), so that any member publishes, promotes and collects garbage.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from ocad_registry import documents, names
from ocad_registry.errors import Corrupt

FILE_MODE = 0o444
FOLDER_MODE = 0o755
GROUP = stat.S_IWGRP | stat.S_ISGID
"""What makes a folder its group's."""
SHARED = "group"


@dataclass(frozen=True, slots=True)
class Mode:
    """A file or folder whose owner, group or mode keeps somebody out; `path` relative to the registry, modes in octal.

    `fixed` says whether it is mended now, `reason` what is wrong, or why it could not be mended.
    """

    path: str
    owner: str
    found: str
    wanted: str
    fixed: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As `ocad registry doctor --json` shows it."""
        return asdict(self)


def folder_mode(base: str) -> int:
    """The mode of new folders in the registry at `base`."""
    try:
        bits = os.lstat(f"{base}/.").st_mode & GROUP
    except FileNotFoundError:
        return FOLDER_MODE
    if is_shared(base):
        bits = GROUP
    return FOLDER_MODE | (bits if bits & stat.S_IWGRP else 0)


def is_shared(base: str) -> bool:
    """Whether `registry.json` says that the registry is a group's."""
    try:
        with open(f"{base}/{names.REGISTRY}", "rb") as file:  # noqa: PTH123
            document = documents.parse(file.read(documents.DOCUMENT_LIMIT + 1), names.REGISTRY)
    except (OSError, Corrupt):
        return False
    return document.get("shared") == SHARED


def examine(base: str, fix: bool) -> list[Mode]:
    """What keeps somebody out of the registry at `base`, root first; with `fix`, what can be mended is."""
    root = os.lstat(f"{base}/.")  # which may be reached through a link
    wanted = folder_mode(base)
    shared = bool(wanted & stat.S_IWGRP)
    found = []
    if shared and (missing := GROUP & ~root.st_mode):
        found.append(_mend(base, "", root, missing, None, fix))
    with os.scandir(base) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found += _examine(base, entry.name, wanted, root.st_gid if shared else None, fix)
    return found


def _examine(base: str, path: str, wanted: int, group: int | None, fix: bool) -> Iterator[Mode]:
    place, wrong = f"{base}/{path}", False
    try:
        looked = os.lstat(place)
        is_folder = stat.S_ISDIR(looked.st_mode)
        if not is_folder and not stat.S_ISREG(looked.st_mode):
            return
        missing = (wanted if is_folder else FILE_MODE) & ~looked.st_mode
        other = group if group not in (None, looked.st_gid) else None
        if wrong := bool(missing or other is not None):
            yield _mend(base, path, looked, missing, other, fix)
        children = sorted(os.listdir(place)) if is_folder else []  # noqa: PTH208
    except FileNotFoundError:
        return  # a writer's, which is done
    except OSError as error:
        if not wrong:
            yield Mode(path, "", "", "", False, f"cannot be read ({(error.strerror or 'unknown error').lower()})")
        return
    for name in children:
        yield from _examine(base, f"{path}/{name}", wanted, group, fix)


def _mend(base: str, path: str, looked: os.stat_result, missing: int, group: int | None, fix: bool) -> Mode:
    """What is wrong with `path`: the bits that are `missing`, and the `group` that it should have."""
    mode = stat.S_IMODE(looked.st_mode) | missing
    what = [f"it is of another group than the registry ({looked.st_gid})"] if group is not None else []
    what += [f"it lacks {missing:o}"] if missing else []
    fixed, reason = False, " and ".join(what)
    if fix:
        place = f"{base}/{path}" if path else base
        try:
            if group is not None:
                os.chown(place, -1, group, follow_symlinks=False)
            os.chmod(place, mode)  # noqa: PTH101 - after the group, whose change takes setgid away
            fixed = True
        except OSError as error:
            reason += f"; {(error.strerror or 'unknown error').lower()}: ask its owner"
    return Mode(path or ".", _name(looked.st_uid), f"{stat.S_IMODE(looked.st_mode):04o}", f"{mode:04o}", fixed, reason)


def _name(user: int) -> str:
    import pwd

    with suppress(KeyError):
        return pwd.getpwuid(user).pw_name
    return str(user)
