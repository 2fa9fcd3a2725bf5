"""The errors of the registry: one small family with the attributes that the command line shows.

``code`` is stable (for ``--json``); for damaged data it is the verdict kind of FORMAT.md. ``message`` is one lower-case line
with literals in backticks, ``hint`` what to do next, ``exit_code`` what a command ends with: 1 failed, 2 wrong usage,
3 gates or verification said no.
"""

from __future__ import annotations


class RegistryError(Exception):
    """Anything that this package raises on purpose; exit code 1."""

    code = "registry"
    exit_code = 1

    def __init__(self, message: str, hint: str = "", *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class NotFound(RegistryError):  # noqa: N818 - the public names read as facts
    """No such model, version, alias or file role; exit code 1."""

    code = "not-found"


class VersionExists(RegistryError):  # noqa: N818
    """The version is taken, by a living, a broken or a deleted one; exit code 1."""

    code = "version-exists"


class ExpectationFailed(RegistryError):  # noqa: N818
    """The alias does not point where the caller expected; nothing was moved; exit code 1."""

    code = "expectation-failed"


class InUse(RegistryError):  # noqa: N818
    """An alias points at the version, or a living one was built from it; nothing was deleted; exit code 1."""

    code = "in-use"


class StorageFailed(RegistryError):  # noqa: N818
    """The file system or object store refused: `disk-full`, `read-only`, `no-access`, the codes of `RemoteError`, `cache`
    (the read cache), or any other way (`storage`); exit code 1."""

    code = "storage"


class RemoteError(OSError):
    """An object store refused or could not be reached: what a `Storage` raises where a disk would raise an `OSError`.

    `code`, `cause` and `hint` are those of the `StorageFailed` that callers of `Registry` see: `no-access`, `no-bucket`,
    `throttled`, `clock-skew`, `unreachable`, `connection`, `wrong-region`, `storage`. Unless `certain`, what was asked for
    may have been done all the same.
    """

    def __init__(self, code: str, cause: str, hint: str) -> None:
        super().__init__(f"{cause}: {hint}")
        self.code = code
        self.cause = cause
        self.hint = hint
        self.certain = True


class Invalid(RegistryError):  # noqa: N818
    """What the caller gave is wrong in itself; exit code 2."""

    code = "invalid"
    exit_code = 2


class InvalidName(Invalid):
    """A model name, version, alias or reference outside the grammar of FORMAT.md; exit code 2."""

    code = "invalid-name"


class InvalidQuery(Invalid):
    """A query outside the grammar of FORMAT.md; exit code 2."""

    code = "invalid-query"


class InvalidDraft(Invalid):
    """A draft or artifact that no reader would accept (a NaN metric, a missing file); exit code 2."""

    code = "invalid-draft"


class Refused(RegistryError):  # noqa: N818
    """Gates or parity failed and nobody forced it; exit code 3."""

    code = "refused"
    exit_code = 3


class Corrupt(RegistryError):  # noqa: N818
    """Stored data fails its verification; `code` is the verdict kind of FORMAT.md; exit code 3."""

    code = "corrupt"
    exit_code = 3

    def __init__(self, code: str, message: str, hint: str = "`ocad registry verify` says more") -> None:
        super().__init__(message, hint, code=code)

    @property
    def verdict(self) -> str:
        """The kind and its cause in one line, as lists show it."""
        return f"{self.code}: {self.message}"


class NewerFormat(Corrupt):
    """Written by a newer format than this reader knows; exit code 1."""

    exit_code = 1

    def __init__(self, where: str, found: int, known: int) -> None:
        super().__init__(
            "newer-format", f"{where} has format `{found}`, this reader knows `{known}`", "upgrade `ocad-registry`"
        )
