"""The plugin host: finds entry points, loads only the plugin that is asked for, and guards every step.

A plugin is an entry point of the group `ocad.plugins`; extensions (group `ocad.extensions`) listen to events and may veto
a registration. One that raises, returns the wrong type or was built for another hook API never harms the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from ocad.contexts import HOOK_API_VERSION, Evaluation, Export, PluginInfo, PreparedData, Trained
from ocad.errors import OcadError, PluginError, UsageError, nearest
from ocad.hookspecs import EventHooks, PluginHooks

if TYPE_CHECKING:
    from ocad.contexts import VersionDraft

PLUGIN_GROUP = "ocad.plugins"
EXTENSION_GROUP = "ocad.extensions"
_RESULT_TYPES: Mapping[str, tuple[type, ...]] = {
    "ocad_plugin_info": (PluginInfo,),
    "ocad_prepare_data": (PreparedData,),
    "ocad_train": (Trained,),
    "ocad_evaluate": (Evaluation,),
    "ocad_export": (Export,),
    "ocad_reference": (dict,),
}


class Guest:
    """A loaded entry point with its hooks: a plugin or an extension. Raises `PluginError` when it cannot be loaded."""

    def __init__(self, entry: EntryPoint, specification: type) -> None:
        self.name = entry.name
        self.package = package_of(entry)
        kind = "extension" if specification is EventHooks else "plugin"
        self.label = f"{kind} `{self.name}` of package `{self.package}`"
        self._manager = pluggy.PluginManager("ocad")
        self._manager.add_hookspecs(specification)
        try:
            self._manager.register(entry.load(), name=entry.name)
            self._manager.check_pending()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"{self.label} does not load ({_cause(error)})",
                "correct or uninstall the package, or set `OCAD_DISABLE_PLUGINS`",
            ) from error

    def implements(self, hook: str) -> bool:
        """Whether there is an implementation of `hook`."""
        return bool(getattr(self._manager.hook, hook).get_hookimpls())

    def call(self, hook: str, **arguments: Any) -> Any:
        """Calls `hook`; an error that is not an `OcadError` becomes a `PluginError` naming package and hook."""
        try:
            return getattr(self._manager.hook, hook)(**arguments)
        except Exception as error:
            if isinstance(error, OcadError) or hasattr(error, "exit_code"):
                raise
            raise PluginError(
                f"{self.label} failed in `{hook}` ({_cause(error)})",
                "run again with `--debug` for the traceback",
            ) from error


class Plugin(Guest):
    """A loaded plugin whose description is known and whose hook API version fits."""

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(entry, PluginHooks)
        self.info: PluginInfo = self.ask("ocad_plugin_info")
        if self.info.api_version != HOOK_API_VERSION:
            raise PluginError(
                f"{self.label} was built for hook API {self.info.api_version}, this is {HOOK_API_VERSION}",
                "install a matching version of the package",
            )
        if self.info.name != self.name:
            raise PluginError(
                f"{self.label} calls itself `{self.info.name}`",
                "make the entry point's name and the info's name equal",
            )

    def ask(self, hook: str, **arguments: Any) -> Any:
        """The answer of a hook that must answer; `PluginError` when it does not, or with the wrong type."""
        if not self.implements(hook):
            raise PluginError(f"{self.label} has no `{hook}`", "implement the hook")
        answer = self.call(hook, **arguments)
        wanted = _RESULT_TYPES.get(hook, (object,))
        if answer is None or not isinstance(answer, wanted):
            names = " or ".join(kind.__name__ for kind in wanted)
            raise PluginError(
                f"{self.label} returned `{type(answer).__name__}` from `{hook}`",
                f"return `{names}`",
            )
        return answer


class Host:
    """All installed plugins and extensions, each loaded when first needed; `warn` receives lines about broken extensions."""

    def __init__(self, warn: Callable[[str], None] = lambda line: None) -> None:
        self._warn = warn
        self._loaded: dict[str, Plugin] = {}

    @cached_property
    def entries(self) -> dict[str, EntryPoint]:
        """Every plugin's entry point by name, in order of names, without importing any; disabled ones are left out."""
        return _entries(PLUGIN_GROUP, self._warn)

    def plugin(self, name: str) -> Plugin:
        """The plugin `name`, loaded. Raises `UsageError` when it is not installed, `PluginError` when it is broken."""
        if name not in self.entries:
            raise UsageError(f"unknown plugin `{name}`", nearest(name, self.entries))
        if name not in self._loaded:
            self._loaded[name] = Plugin(self.entries[name])
        return self._loaded[name]

    def survey(self) -> Iterator[tuple[EntryPoint, Plugin | PluginError]]:
        """Every plugin, loaded, or the error that kept it from loading."""
        for name, entry in self.entries.items():
            try:
                yield entry, self.plugin(name)
            except PluginError as error:
                yield entry, error

    @cached_property
    def extensions(self) -> list[Guest]:
        """The extensions that load; the others are reported to `warn` and left out."""
        guests = []
        for entry in _entries(EXTENSION_GROUP, self._warn).values():
            try:
                guests.append(Guest(entry, EventHooks))
            except PluginError as error:
                self._warn(str(error))
        return guests

    def fire(self, event: str, **facts: Any) -> None:
        """Tells every extension of `event`; one that raises is reported to `warn` and the others are still told."""
        for guest in self.extensions:
            try:
                guest.call(event, **facts)
            except Exception as error:
                self._warn(f"{guest.label} failed in `{event}` ({_cause(error.__cause__ or error)})")

    def ask_veto(self, draft: VersionDraft) -> None:
        """Fires `ocad_before_register`; any error of any extension, ours or not, is a veto and is raised."""
        for guest in self.extensions:
            guest.call("ocad_before_register", draft=draft)


def package_of(entry: EntryPoint) -> str:
    """The distribution that an entry point comes from, as `name version`."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def _entries(group: str, warn: Callable[[str], None]) -> dict[str, EntryPoint]:
    """The entry points of `group` by name; of two packages with one name the first by package is used, and `warn` told."""
    disabled = {name.strip() for name in os.environ.get("OCAD_DISABLE_PLUGINS", "").split(",")}
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, package_of(entry))):
        if entry.name in found:
            others = f"`{package_of(found[entry.name])}` and `{package_of(entry)}`"
            warn(f"{others} both bring `{entry.name}`: the first is used, uninstall one")
        elif entry.name not in disabled:
            found[entry.name] = entry
    return found


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
