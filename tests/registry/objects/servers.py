"""Real S3 protocol servers on free loopback ports: moto in its own process, and s3proxy by the script beside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(os.environ.get("OCAD_SHARED_INFRA", ROOT.parent / "shared" / "infra")) / "s3.sh"
JARS = ROOT / ".cache" / "s3proxy"
KEY, SECRET = "ocad", "ocad-secret"
_MOTO = """
import io, logging, sys, threading
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

application, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

def serve(environ, respond):
    "moto looks whether an object is there and stores it in two steps, between which S3 lets nobody in."
    if "HTTP_IF_NONE_MATCH" not in environ or environ["REQUEST_METHOD"] != "PUT" or "HTTP_TRANSFER_ENCODING" in environ:
        return application(environ, respond)
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    with lock:
        return application(environ, respond)

server = make_server("127.0.0.1", 0, serve, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
"""


@contextmanager
def moto() -> Iterator[str]:
    """The address of a moto server, which ends with the context (or with this process)."""
    command = [sys.executable, "-c", _MOTO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.communicate("", timeout=600)


@contextmanager
def s3proxy(folder: Path) -> Iterator[str]:
    """The address of an s3proxy whose files lie in `folder`; its jars are kept in the checkout's cache."""
    JARS.mkdir(parents=True, exist_ok=True)
    (folder / "s3-s3proxy").mkdir()
    for jars in JARS.glob("jars-*"):
        (folder / "s3-s3proxy" / jars.name).symlink_to(jars)
    address = _script("start", folder)
    try:
        _keep_jars(folder)
        yield address
    finally:
        _script("stop", folder)


def _script(action: str, folder: Path) -> str:
    environment = os.environ | {"S3_KIND": "s3proxy"}
    done = subprocess.run(
        ["bash", str(SCRIPT), action, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _keep_jars(folder: Path) -> None:
    """What Maven fetched, for the next session; a rename, so that two sessions may do it at once."""
    for jars in (folder / "s3-s3proxy").glob("jars-*"):
        if not jars.is_symlink() and not (JARS / jars.name).exists():
            copy = JARS / f".{jars.name}-{os.getpid()}"
            subprocess.run(["cp", "-r", str(jars), str(copy)], check=True)
            copy.rename(JARS / jars.name)
