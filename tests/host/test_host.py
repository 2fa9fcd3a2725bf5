"""The host: what is installed is found without being imported, and what is broken harms nobody else."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from ocad.contexts import VersionDraft
from ocad.errors import OcadError, PluginError, UsageError
from ocad.hookspecs import hookimpl
from ocad.host import Host, Plugin

FIXTURES = ("hello", "waits", "raises-in-hook", "raises-on-import", "wrong-api", "wrong-info", "wrong-type")
DRAFT = VersionDraft("hello-rtt", "hello", "forecast", "rtt", {"mae": 1.0}, True, Path("run"))


@pytest.fixture
def host(plugin_site: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The host with the packages of `tests/fixtures` installed beside the built-in plugins."""
    monkeypatch.syspath_prepend(str(plugin_site))
    return Host()


def test_every_entry_point_is_known_without_any_being_imported(plugin_site: Path) -> None:
    code = "import sys; from ocad.host import Host; print(*Host().entries); print([m for m in sys.modules if 'ocad_' in m])"
    answer = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(plugin_site)}, capture_output=True, text=True, check=True
    )
    names, modules = answer.stdout.splitlines()
    assert {"tcn", *FIXTURES} <= set(names.split())
    assert modules == "[]"


def test_only_the_plugin_that_is_asked_for_is_imported(plugin_site: Path) -> None:
    code = "import sys; from ocad.host import Host; Host().plugin('hello'); print(*[m for m in sys.modules if 'ocad_' in m])"
    answer = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(plugin_site)}, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["ocad_hello"]


def test_a_plugin_is_loaded_once_with_its_description(host: Host) -> None:
    plugin = host.plugin("hello")
    assert (plugin.info.name, plugin.info.task, plugin.package) == ("hello", "forecast", "ocad-hello 0.1.0")
    assert host.plugin("hello") is plugin


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (
            "raises-on-import",
            "does not load (RuntimeError: the licence server does not answer)",
            "correct or uninstall the package, or set `OCAD_DISABLE_PLUGINS`",
        ),
        ("wrong-api", "was built for hook API 2, this is 1", "install a matching version of the package"),
        ("wrong-info", "returned `dict` from `ocad_plugin_info`", "return `PluginInfo`"),
    ],
)
def test_a_broken_plugin_says_why_when_it_is_asked_for(host: Host, name: str, message: str, hint: str) -> None:
    with pytest.raises(PluginError) as caught:
        host.plugin(name)
    assert caught.value.message == f"plugin `{name}` of package `ocad-broken 0.1.0` {message}"
    assert (caught.value.hint, caught.value.exit_code) == (hint, 1)


def test_the_survey_shows_sound_and_broken_side_by_side(host: Host) -> None:
    broken = {entry.name for entry, found in host.survey() if not isinstance(found, Plugin)}
    assert broken == {"raises-on-import", "wrong-api", "wrong-info"}


def test_an_unknown_plugin_names_its_nearest_neighbour(host: Host) -> None:
    with pytest.raises(UsageError) as caught:
        host.plugin("helo")
    assert (str(caught.value), caught.value.exit_code) == ("unknown plugin `helo`: did you mean `hello`?", 2)


def test_disabled_plugins_and_extensions_are_left_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCAD_DISABLE_PLUGINS", "tcn, wrong-api,hello-veto")
    assert set(FIXTURES) - set(host.entries) == {"wrong-api"}
    assert "tcn" not in host.entries
    assert [guest.name for guest in host.extensions] == ["hello-log", "interrupt"]


def test_a_hook_that_is_missing_is_named(host: Host) -> None:
    with pytest.raises(PluginError) as caught:
        host.plugin("wrong-type").ask("ocad_train", context=None, data=None)
    assert str(caught.value) == (
        "plugin `wrong-type` of package `ocad-broken 0.1.0` has no `ocad_train`: implement the hook"
    )


def plugin_of(monkeypatch: pytest.MonkeyPatch, **hooks: object) -> EntryPoint:
    """The entry point of a module with these `hooks`."""
    module = ModuleType("some_plugin")
    for name, hook in hooks.items():
        setattr(module, name, hook)
    monkeypatch.setitem(sys.modules, "some_plugin", module)
    return EntryPoint("some", "some_plugin", "ocad.extensions")


def test_a_hook_that_nobody_specified_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    def ocad_trian(context: object) -> None: ...

    with pytest.raises(PluginError, match=r"does not load \(PluginValidationError: unknown hook 'ocad_trian'"):
        Plugin(plugin_of(monkeypatch, ocad_trian=ocad_trian))


def test_a_module_that_exits_is_only_a_broken_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "exiting_plugin.py").write_text("raise SystemExit('bye')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"plugin `e` of package `unknown` does not load \(SystemExit: bye\)"):
        Plugin(EntryPoint("e", "exiting_plugin", "ocad.plugins"))


def extended(monkeypatch: pytest.MonkeyPatch, **hooks: object) -> tuple[Host, list[str]]:
    """A host whose only extensions are one with these `hooks`, and one that does not load; with the warnings."""
    broken = EntryPoint("absent", "no_such_module", "ocad.extensions")
    found = {"ocad.extensions": [broken, plugin_of(monkeypatch, **hooks)]}
    monkeypatch.setattr("ocad.host.entry_points", lambda group: found.get(group, []))
    warnings: list[str] = []
    return Host(warn=warnings.append), warnings


def test_an_extension_that_raises_in_an_event_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookimpl
    def ocad_version_registered(version: object) -> None:
        raise ValueError("no space on the board")

    host, warnings = extended(monkeypatch, ocad_version_registered=ocad_version_registered)
    host.fire("ocad_version_registered", version=None)
    assert warnings == [
        "extension `absent` of package `unknown` does not load (ModuleNotFoundError: "
        "No module named 'no_such_module'): correct or uninstall the package, or set `OCAD_DISABLE_PLUGINS`",
        "extension `some` of package `unknown` failed in `ocad_version_registered` (ValueError: no space on the board)",
    ]


@pytest.mark.parametrize("error", [OcadError("not on fridays", "wait"), ValueError("not on fridays")])
def test_any_error_before_registration_is_a_veto(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    @hookimpl
    def ocad_before_register(draft: VersionDraft) -> None:
        assert draft is DRAFT
        raise error

    host, _ = extended(monkeypatch, ocad_before_register=ocad_before_register)
    with pytest.raises(OcadError, match="not on fridays"):
        host.ask_veto(DRAFT)
