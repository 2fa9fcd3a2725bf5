"""Writes a new plugin as a package of its own: `ocad plugins new`.

The templates stand in `templates/`: `common` for every task, and one folder for each task. A file's path loses `.tmpl`, a
folder `package` takes the module's name, and `${name}`, `${package}`, `${module}` and the like are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocad.errors import OcadError, UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

TASKS = ("forecast", "detect", "ctr")
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_NAME_LENGTH = 32
"""Longer names would not fit the lines of the templates."""
_SUFFIX = ".tmpl"
_NO_TORCH = """
[[tool.mypy.overrides]]
# not used here, and slow to read
module = ["torch.*"]
follow_imports = "skip"
"""
_FACTS: Mapping[str, Mapping[str, str]] = {
    "forecast": {
        "entry": "",
        "types": _NO_TORCH,
        "summary": "Ridge autoregression: the next value from the last ones",
        "train": "ocad train --plugin ${name} --metric udp_echo --data rtt.parquet",
        "model": "${name}-udp_echo",
        "rows": "| `${module}/model.py` | data, fit, forecast and errors |\n| `${module}/graph.py` | the ONNX graph |",
    },
    "detect": {
        "entry": ":plugin",
        "types": _NO_TORCH,
        "summary": "Deviations from a moving average, and lost rows",
        "train": "ocad train --plugin ${name} --metric udp_echo --data rtt.parquet",
        "model": "${name}-udp_echo",
        "rows": "| `${module}/detector.py` | the detector: fit, score row by row, parameters |",
    },
    "ctr": {
        "entry": ":plugin",
        "types": "",
        "summary": "Logistic regression over hashed ids",
        "train": "ocad train --plugin ${name} --data clicks.parquet",
        "model": "${name}",
        "rows": "| `${module}/network.py` | the network; training, calibration and export are shared |",
    },
}


@dataclass(frozen=True, slots=True)
class NewPlugin:
    """What was written: the plugin `name` in the `package` (its distribution), imported as `module`, under `folder`."""

    name: str
    task: str
    package: str
    module: str
    folder: Path
    files: tuple[str, ...]


def write_plugin(name: str, task: str, folder: Path | None = None) -> NewPlugin:
    """Writes a whole package for the plugin `name` to `folder` (default: `ocad-NAME` here), which must not exist.

    It appears at once and whole, or not at all. Raises `UsageError` for a name that is no plugin name or is taken, an unknown
    task, and a folder that exists; `OcadError` where nothing can be written.
    """
    _check_name(name)
    if task not in TASKS:
        raise UsageError(f"there is no template for the task `{task}`", "known: " + ", ".join(f"`{t}`" for t in TASKS))
    package, module = f"ocad-{name.replace('_', '-')}", f"ocad_{name.replace('-', '_')}"
    _check_free(name, module)
    folder = folder or Path(package)
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"`{folder}` exists already", "name another folder with `--folder`")
    texts = dict(sorted(_render(task, {"name": name, "task": task, "package": package, "module": module})))
    _write(folder, texts)
    return NewPlugin(name, task, package, module, folder, tuple(texts))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        hint = f"use a-z, 0-9 and single `_` or `-` between them, at most {_NAME_LENGTH}, a letter first"
        raise UsageError(f"`{name}` is no plugin name", hint)


def _check_free(name: str, module: str) -> None:
    """Raises `UsageError` when the name or the module is taken by something that is installed."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    from ocad.host import PLUGIN_GROUP, package_of

    for entry in entry_points(group=PLUGIN_GROUP, name=name):
        raise UsageError(f"a plugin `{name}` is installed already, by `{package_of(entry)}`", "choose another name")
    if find_spec(module):
        raise UsageError(f"a module `{module}` is there already", "choose another name")


def _render(task: str, facts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Path and text of every file of the package."""
    from importlib.resources import files
    from string import Template

    facts = {**facts, **{key: Template(text).substitute(facts) for key, text in _FACTS[task].items()}}
    for part in ("common", task):
        for path, template in _templates(files(__name__) / "templates" / part):
            text = Template(template.read_text(encoding="utf-8")).substitute(facts)
            yield path.replace("package/", f"{facts['module']}/", 1).removesuffix(_SUFFIX), text


def _templates(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(_SUFFIX):
            yield prefix + entry.name, entry


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes beside `folder` first and renames, so that nobody ever sees a half of it."""
    import shutil
    from tempfile import mkdtemp

    staging: Path | None = None
    try:
        staging = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        staging.chmod(0o755)
        for path, text in texts.items():
            file = staging / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        staging.rename(folder)
    except OSError as error:
        raise OcadError(
            f"cannot write `{folder}` ({str(error.strerror).lower()})",
            "name a folder that can be written with `--folder`",
        ) from None
    finally:
        if staging and staging.exists():
            shutil.rmtree(staging, ignore_errors=True)
