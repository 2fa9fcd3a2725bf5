"""The errors a user can meet: one small family, formatted by the command line alone.

Every error keeps three things: ``code`` (stable, for ``--json``), ``message`` (one lower-case line: what and where,
literals in backticks) and ``hint`` (what to do next). ``exit_code`` is what the process ends with.
`ocad_registry.RegistryError` has the same four attributes, so both are shown alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class OcadError(Exception):
    """Something failed; exit code 1."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class UsageError(OcadError):
    """The call itself is wrong (unknown plugin, metric, option); exit code 2."""

    code = "usage"
    exit_code = 2


class ConfigError(UsageError):
    """A configuration does not fit its model (unknown key, wrong type, out of range); exit code 2."""

    code = "config"


class DataError(OcadError):
    """Input data is missing, unreadable or unusable; exit code 1."""

    code = "data"


class PluginError(OcadError):
    """A plugin could not be loaded, raised in a hook, or returned the wrong type; exit code 1."""

    code = "plugin"


class CheckpointError(OcadError):
    """A checkpoint is missing, corrupt, or belongs to another run; exit code 1."""

    code = "checkpoint"


class VerificationError(OcadError):
    """A gate, parity or verification said no; exit code 3."""

    code = "refused"
    exit_code = 3


class RunInterruptedError(OcadError):
    """Ctrl-C during training; the run folder is kept and can be resumed; exit code 1."""

    code = "interrupted"


def in_one_line(error: Exception) -> str:
    """What another library raised, with the name of its kind."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the entry of `known` closest to `word`, or all of them when none is close."""
    options = sorted(known)
    close = get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known: " + ", ".join(f"`{option}`" for option in options) if options else "none is known here"


def shown(value: object) -> str:
    """A cell as a message shows it: at most its first 60 characters."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8: an argument of the command line that was none has halves of surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """`text` on one line as a terminal may show it: what does not print is escaped, so that no name forges a line or colour."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """`text` of several lines, in which all else that does not print is escaped."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """`text`, a JSON value, of equal meaning where it has characters that do not print: they stand in strings alone."""
    return "\n".join(line if line.isprintable() else "".join(map(_escaped, line)) for line in text.split("\n"))


def _escaped(one: str) -> str:
    """A character of a JSON string, as `\\uXXXX` where it does not print."""
    if one.isprintable():
        return one
    units = one.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
