"""`ocad registry delete|gc|copy|diff|export|import|sign|keygen|verify --require-signature` as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocad.cli.registry_lifecycle import size
from ocad_registry import Artifact, Draft, GateResult, Parent, PluginReference, Registry

from .conftest import Answer, CommandLine


@pytest.fixture
def models(work: Path) -> Registry:
    """A registry of its own: `m@1.0.0`, and `m@1.1.0` that was built from it."""
    (work / "weights.bin").write_bytes(b"w" * 1500)
    registry = Registry(work / "lifecycle", by="ops@example")
    plugin = PluginReference(name="tcn", version="0.1.0", package="ocad")
    parents: list[Parent] = []
    for loss in (0.5, 0.25):
        gate = GateResult(name="loss", metric="loss", op="<", threshold=1, observed=loss, passed=True)
        draft = Draft(name="m", plugin=plugin, task="forecast", metrics={"loss": loss}, gates=[gate], parents=parents)
        version = registry.publish(draft, [Artifact(work / "weights.bin", "weights")])
        parents = [Parent(ref=version.ref, metadata_sha256=version.metadata_sha256)]
    return registry


@pytest.fixture
def run(ocad: CommandLine, models: Registry, work: Path) -> CommandLine:
    """`ocad registry … --registry lifecycle` in the work folder."""

    def call(*arguments: str) -> Answer:
        return ocad("registry", *arguments, "--registry", str(work / "lifecycle"))

    return call


def test_delete_and_gc(run: CommandLine, models: Registry) -> None:
    refused = run("delete", "m@1.0.0", "--json")
    assert (refused.code, refused.value["error"]["code"]) == (1, "in-use")
    assert "`m@1.1.0` is built from it" in refused.value["error"]["message"]
    assert run("delete", "m@1.1.0", "--reason", "obsolete").out.startswith("m@1.1.0 is deleted")
    waiting = run("gc", "--dry-run").out
    assert "kept" in waiting
    assert "kept for 7 days more" in waiting
    [shown] = run("gc", "--dry-run", "--grace", "0", "--json").value
    assert set(shown) == {"path", "kind", "size", "due", "removed", "reason"}
    assert (shown["path"], shown["due"], shown["removed"]) == ("m/1.1.0", True, False)
    assert "would remove" in run("gc", "--dry-run", "--grace", "0").out
    assert "removed" in run("gc", "--grace", "0s").out
    assert run("gc", "--grace", "0").out == "no garbage\n"
    answer = run("delete", "m@1.0.0", "--json").value
    assert set(answer) == {"ref", "deleted_at", "by", "reason"}
    assert models.list() == []


@pytest.mark.parametrize("grace", ["7", "-1d", "soon", "1y", "nan"])
def test_a_grace_must_be_a_time(run: CommandLine, grace: str) -> None:
    answer = run("gc", f"--grace={grace}")
    assert answer.code == 2
    assert f"`{grace}` is no time" in answer.err


def test_copy_export_and_import(run: CommandLine, work: Path, ocad: CommandLine) -> None:
    copied = run("copy", "m@1.1.0", "--to", str(work / "other"), "--with-parents", "--json").value
    assert [(one["ref"], one["copied"], one["size"]) for one in copied] == [
        ("m@1.0.0", True, 1500),
        ("m@1.1.0", True, 1500),
    ]
    assert "was there" in run("copy", "m@1.1.0", "--to", str(work / "other")).out
    written = run("export", "m", "m.tar", "--json").value
    assert written["size"] == (work / "m.tar").stat().st_size
    assert (written["ref"], written["path"]) == ("m@1.1.0", "m.tar")
    again = run("export", "m", "m.tar")
    assert again.code == 2
    assert again.err == "error: `m.tar` exists: archives are not overwritten; give another name\n"
    third = ("--registry", str(work / "third"))
    assert ocad("registry", "import", "m.tar", *third).out == "m@1.1.0 is imported\n"
    assert ocad("registry", "import", "m.tar", *third, "--json").value["copied"] is False
    (work / "m.tar").write_bytes((work / "m.tar").read_bytes()[:4000])
    broken = ocad("registry", "import", "m.tar", "--registry", str(work / "fourth"), "--json")
    assert (broken.code, broken.value["error"]["code"]) == (3, "bad-archive")


def test_diff(run: CommandLine) -> None:
    changes = run("diff", "m@1.0.0", "m@1.1.0", "--json").value
    loss = next(change for change in changes if (change["section"], change["name"]) == ("metrics", "loss"))
    assert (loss["first"], loss["second"], loss["delta"]) == (0.5, 0.25, -0.25)
    assert [change["section"] for change in changes] == ["metrics", "gates", "parents"]
    table = run("diff", "m@1.0.0", "m@1.1.0").out.splitlines()
    assert table[0].split() == ["what", "name", "m@1.0.0", "m@1.1.0", "difference"]
    assert run("diff", "m@1.0.0", "m").code == 0
    assert run("diff", "m@1.0.0", "m@1.0.0").out == "nothing differs\n"


def test_sign_and_verify(run: CommandLine, ocad: CommandLine, work: Path) -> None:
    key = ocad("registry", "keygen", "release.pem", "--json").value
    assert (work / "release.pem").stat().st_mode & 0o777 == 0o600
    signature = ("--require-signature", "--keys", "release.pem.pub")
    unsigned = run("verify", "m@1.0.0", *signature, "--json")
    assert (unsigned.code, [finding["kind"] for finding in unsigned.value]) == (3, ["unsigned"])
    signed = run("sign", "m@1.0.0", "--key", "release.pem", "--json").value
    assert (signed["ref"], signed["key_id"], signed["algorithm"]) == ("m@1.0.0", key["key_id"], "ed25519")
    assert run("sign", "m@1.0.0", "--key", "release.pem", "--json").value == signed
    assert run("verify", "m@1.0.0", *signature).out == "everything is whole\n"
    whole = run("verify", *signature, "--json")
    assert [(finding["reference"], finding["kind"]) for finding in whole.value] == [("m@1.1.0", "unsigned")]
    assert run("verify", "--require-signature").code == 2
    assert run("verify", "--keys", "release.pem.pub").code == 2


@pytest.mark.parametrize("command", ["predict", "detect"])
def test_models_that_nobody_signed_are_not_asked(run: CommandLine, ocad: CommandLine, work: Path, command: str) -> None:
    assert ocad("registry", "keygen", "release.pem").code == 0
    (work / "rows.csv").write_text("timestamp_us,delay_us\n1,2\n", encoding="ascii")
    asked = (command, "m@1.1.0", "--data", "rows.csv", "--keys", "release.pem.pub", "--registry", "lifecycle")
    refused = ocad(*asked, "--require-signature")
    assert (refused.code, "is not signed by" in refused.err) == (3, True), refused.err
    assert run("sign", "m@1.1.0", "--key", "release.pem").code == 0
    assert "is not signed by" not in ocad(*asked, "--require-signature").err
    assert run("promote", "m@1.1.0", "production", "--key", "release.pem").code == 0
    assert run("verify", "m", "--require-signature=aliases", "--keys", "release.pem.pub").code == 0
    assert run("promote", "m@1.0.0", "production").code == 3
    assert ocad(*asked).code == 2, "keys without the flag"


@pytest.mark.parametrize("given", ["release.pem", "weights.bin", "none.pem"])
def test_only_public_keys_are_trusted_and_only_secret_ones_sign(
    run: CommandLine, ocad: CommandLine, given: str
) -> None:
    assert ocad("registry", "keygen", "release.pem").code == 0
    assert run("verify", "--require-signature", "--keys", given).code == 2
    wrong = "release.pem.pub" if given == "release.pem" else given
    assert run("sign", "m@1.0.0", "--key", wrong).code == 2


def test_signing_without_its_package_says_what_to_install(models: Registry, work: Path) -> None:
    hide = "import sys; sys.modules['cryptography'] = None; import ocad.__main__; ocad.__main__.main()"
    command = [sys.executable, "-c", hide, "registry", "keygen", "k.pem"]
    done = subprocess.run(command, cwd=work, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: signatures need the package `cryptography`: `pip install 'ocad-registry[sign]'`\n"


def test_sizes_are_for_people() -> None:
    assert [size(count) for count in (0, 999, 1500, 2_500_000, 3 * 10**9)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
    ]
