"""Whether a file or folder is this user's alone to change."""

from __future__ import annotations

import os
import stat

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def others_write(path: str | os.PathLike[str]) -> bool:
    """Whether anybody but this user and root can change `path`, or put something else in its place; raises `OSError`."""
    place, user = os.path.realpath(path), os.geteuid()
    while True:
        found = os.lstat(place)
        # in a sticky folder others can add, but not rename what is not theirs
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if (found.st_mode & _OTHERS and not sticky) or found.st_uid not in (user, 0):
            return True
        parent = os.path.dirname(place)  # noqa: PTH120
        if parent == place:
            return False
        place = parent


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Makes `folder` and what is missing above it, writable for this user alone whatever the umask."""
    place = os.fspath(folder)
    try:
        os.mkdir(place, 0o755)  # noqa: PTH102 - unlike `makedirs`, which gives parents another mode
    except FileExistsError:
        if not os.path.isdir(place):  # noqa: PTH112
            raise
    except FileNotFoundError:
        make_folder(os.path.dirname(place))  # noqa: PTH120
        make_folder(place)
