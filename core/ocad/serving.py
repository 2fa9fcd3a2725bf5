"""Where the server's binary and the onnxruntime library are found (DESIGN §6)."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from ocad.errors import OcadError

BINARY = "ocad-server"


def find_server() -> Path:
    """The server's binary: `OCAD_SERVER`, then PATH, then `serving/target/release/` of the project.

    Raises `OcadError` when there is none, or when `OCAD_SERVER` names no executable file.
    """
    from ocad.project import project_root

    named = os.environ.get("OCAD_SERVER")
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise OcadError(f"`OCAD_SERVER` names `{named}`, which is no executable file", "correct or unset it")
        return Path(named)
    on_path = shutil.which(BINARY)
    built = project_root() / "serving" / "target" / "release" / BINARY
    if on_path or built.is_file():
        return Path(on_path or built)
    raise OcadError(f"the server `{BINARY}` is not built", "run `make setup`, or set `OCAD_SERVER` to its path")


def find_onnxruntime(given: str | None = None) -> Path:
    """The runtime library: `given`, then `ORT_DYLIB_PATH`, then `libonnxruntime.so*` of the installed onnxruntime.

    Raises `OcadError` when there is none.
    """
    named = given or os.environ.get("ORT_DYLIB_PATH")
    if named:
        if not Path(named).is_file():
            raise OcadError(f"there is no onnxruntime library `{named}`", "correct `--onnxruntime` or `ORT_DYLIB_PATH`")
        return Path(named)
    package = find_spec("onnxruntime")  # found, not imported: the import costs 300 ms
    folder = Path(package.origin).parent / "capi" if package and package.origin else Path()
    libraries = sorted(folder.glob("libonnxruntime.so*"))
    if not libraries:
        raise OcadError("no `libonnxruntime.so` is installed", "run `make setup`, or give `--onnxruntime PATH`")
    return libraries[0]
