"""What the shell offers after TAB: references, models, aliases, plugins, data sets and metrics.

Each of them has the signature that click wants of `shell_complete`. They import what they need when they are asked, and
offer nothing where anything is wrong: a completion never prints an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

if TYPE_CHECKING:
    from ocad_registry import Registry

VARIABLE = "_OCAD_COMPLETE"
"""Set by the scripts of `ocad completion` when they ask."""

_AT_ONCE = 50
"""How many targets are offered to somebody who typed no `@` yet."""

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def _quietly(words: Callable[[click.Context, str], Iterable[str]]) -> Complete:
    """`words` in click's terms: those that begin with what is typed, none after an exception."""

    @wraps(words)
    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        try:
            return [CompletionItem(word) for word in words(context, incomplete) if word.startswith(incomplete)]
        except Exception:
            return []

    return complete


@_quietly
def references(context: click.Context, incomplete: str) -> Iterable[str]:
    """Models, and after `@` the aliases and versions of one, highest first; the first of them where one model alone fits."""
    store = _registry(context)
    found = store.completions(incomplete)
    if len(found) == 1 and "@" not in found[0]:
        return [*found, *store.completions(f"{found[0]}@")[:_AT_ONCE]]
    return found


@_quietly
def models(context: click.Context, _incomplete: str) -> Iterable[str]:
    """The models of the registry."""
    return _registry(context).models()


@_quietly
def aliases(context: click.Context, _incomplete: str) -> Iterable[str]:
    """The aliases of the model that stands before, and the one that is usual."""
    from ocad_registry.names import DEFAULT_ALIAS

    named = str(context.params.get("reference") or context.params.get("name") or "")
    return dict.fromkeys([*_registry(context).aliases(named.partition("@")[0]), DEFAULT_ALIAS])


@_quietly
def plugins(_context: click.Context, _incomplete: str) -> Iterable[str]:
    """The installed plugins, none of them imported."""
    from ocad.host import Host

    return Host().entries


@_quietly
def metrics(context: click.Context, _incomplete: str) -> Iterable[str]:
    """The metrics of the data set that `--data` names, else of the whole catalogue."""
    from ocad.project import catalogue_files

    files = catalogue_files()
    named = str(context.params.get("data") or "").partition(":")[0]
    chosen = [file for file in files if file.stem == named] or files
    return sorted({metric for file in chosen for metric in _metrics_in(file)})


def _metrics_in(file: Path) -> list[str]:
    """The metrics of one entry of the catalogue; none where the entry is broken."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return [str(metric) for metric in yaml.load(file.read_text(encoding="utf-8"), loader).get("columns") or ()]
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return []


def data(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The data sets of the catalogue, and files."""
    return [*_data_sets(context, parameter, incomplete), CompletionItem(incomplete, type="file")]


@_quietly
def _data_sets(_context: click.Context, _incomplete: str) -> Iterable[str]:
    from ocad.project import catalogue_files

    return sorted(file.stem for file in catalogue_files())


def _registry(context: click.Context) -> Registry:
    from ocad.cli.options import open_registry

    return open_registry(context.params.get("registry"))


_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line=${COMP_LINE:0:COMP_POINT} marks= mark word cut= answer
    word=${line##*[[:space:]]}
    for mark in @ = :; do
        if [[ $COMP_WORDBREAKS == *"$mark"* ]]; then marks+=$mark; fi
    done
    # readline replaces only what stands after the last of its own word breaks, and @ itself
    if [[ $marks && $word == *[$marks]* ]]; then cut=${word%%"${word##*[$marks]}"}; cut=${cut%%@}; fi
    COMPREPLY=()
    for answer in $(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1"); do
        case $answer in
            plain,*) answer=${answer#plain,}; COMPREPLY+=("${answer#"$cut"}") ;;
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class WholeWordBash(BashComplete):
    """As click's, but `name@alias` is one word, although readline breaks words at `@`, and files are offered after names."""

    source_template = _BASH

    def source(self) -> str:
        """The script, without asking bash for its version."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """The finished words after the program's name, and the unfinished one, of the line up to the cursor."""
        from click.shell_completion import split_arg_string

        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        return words[1:], incomplete


def prepare() -> None:
    """Makes `WholeWordBash` the completion of bash."""
    add_completion_class(WholeWordBash, "bash")
