"""From what an operating system or an object store says to one clear `StorageFailed`."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ocad_registry.errors import RemoteError, StorageFailed


@contextmanager
def failures(root: str, doing: str, result: str = "") -> Iterator[None]:
    """Turns every `OSError` into a `StorageFailed`, as `storage_failed` says."""
    try:
        yield
    except OSError as error:
        raise storage_failed(error, root, doing, result) from error


def storage_failed(error: OSError, root: str, doing: str, result: str = "") -> StorageFailed:
    """The failure of `doing` ("publishing m") at `root`; `result` says what that left behind, where it is certain."""
    if isinstance(error, RemoteError):
        after = f"{result}; " if result and error.certain else ""
        doubt = "" if error.certain or not result else "; whether it was done is not known: look before you do it again"
        return StorageFailed(f"{error.cause} while {doing}", f"{after}{error.hint}{doubt}", code=error.code)
    after = f"{result}; " if result else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFailed(
            f"no space left in `{root}` while {doing}", f"{after}free some and try again", code="disk-full"
        )
    if error.errno == errno.EROFS:
        return StorageFailed(
            f"registry `{root}` is read-only while {doing}", f"{after}check its mount", code="read-only"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"access to `{error.filename or root}` is refused while {doing}"
        return StorageFailed(message, f"{after}check its owner and permissions", code="no-access")
    cause = (error.strerror or "unknown error").lower()
    return StorageFailed(
        f"{cause} at `{error.filename or root}` while {doing}", f"{after}check the disk under `{root}`"
    )
