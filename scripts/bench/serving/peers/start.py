"""The peers' environments, made with uv and kept under the cache, and how each peer is started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from serving.fixture import FIELDS
from serving.processes import Server, free_port

HERE = Path(__file__).resolve().parent
RUNTIME = f"onnxruntime=={version('onnxruntime')}"
PACKAGES = {
    "triton": ("nvidia-pytriton==0.7.0", "numpy==1.26.4", RUNTIME),
    "fastapi": ("fastapi==0.165.0", "uvicorn[standard]", "numpy", RUNTIME),
    "mlserver": ("mlserver==1.7.1", "numpy", RUNTIME),
}
TITLES = {
    "triton": "Triton 2.51, python backend running onnxruntime, dynamic batching",
    "fastapi": "FastAPI 0.165 + onnxruntime, 2 uvicorn workers",
    "mlserver": "MLServer 1.7.1 + onnxruntime, adaptive batching",
}


class Peer(NamedTuple):
    """A running peer; `grpc` is empty where it has none that is measured."""

    server: Server
    http: str
    grpc: str


class UnavailableError(Exception):
    """A peer that cannot be installed or started; the text goes into the table."""


def environment(name: str, cache: Path) -> Path:
    """The folder of the peer's virtual environment, made on first use; raises `UnavailableError`."""
    folder = cache / name
    stamp = folder / ".installed"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == "\n".join(PACKAGES[name]):
        return folder
    uv = shutil.which("uv") or next(iter(cache.parent.glob("uv/bin/uv")), None)
    if uv is None:
        raise UnavailableError("uv is not installed")
    python = folder / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, folder],
        [uv, "pip", "install", "--quiet", "--python", python, *PACKAGES[name]],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"could not be installed: {(done.stderr.splitlines() or ['no message'])[-1][:200]}")
    stamp.write_text("\n".join(PACKAGES[name]), encoding="utf-8")
    return folder


def start(name: str, graph: Path, cache: Path) -> Peer:
    """Starts the peer `name` over the ONNX file `graph` and waits until it is ready; raises `UnavailableError`."""
    folder = environment(name, cache)
    work = cache / "serving" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        return {"triton": _triton, "fastapi": _fastapi, "mlserver": _mlserver}[name](folder, work, graph)
    except (RuntimeError, OSError) as error:
        raise UnavailableError(f"did not start: {str(error)[-200:]}") from error


def _site_packages(folder: Path) -> Path:
    return next(folder.glob("lib/python3*/site-packages"))


def _triton(folder: Path, work: Path, graph: Path) -> Peer:
    """The tritonserver of the `nvidia-pytriton` wheel, which carries the python backend only."""
    home = _site_packages(folder) / "pytriton" / "tritonserver"
    stub = f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    shutil.copy2(home / stub, home / "backends" / "python")
    model = work / "models" / "deepfm"
    (model / "1").mkdir(parents=True)
    shutil.copy(HERE / "triton_model.py", model / "1" / "model.py")
    (model / "config.pbtxt").write_text(
        f"""name: "deepfm"
backend: "python"
max_batch_size: 256
input [{{ name: "ids" data_type: TYPE_INT64 dims: [{FIELDS}] }}]
output [{{ name: "probability" data_type: TYPE_FP32 dims: [1] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
dynamic_batching {{ }}
parameters {{ key: "graph" value: {{ string_value: "{graph}" }} }}
""",
        encoding="utf-8",
    )
    http, grpc = free_port(), free_port()
    command = [str(home / "bin" / "tritonserver"), f"--model-repository={work / 'models'}"]
    command += [f"--backend-directory={home / 'backends'}", "--allow-metrics=false", "--allow-gpu-metrics=false"]
    command += ["--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}"]
    env = {
        "LD_LIBRARY_PATH": str(_site_packages(folder) / "nvidia_pytriton.libs"),
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(_site_packages(folder)),
    }
    server = Server(command, work / "log", env)
    server.wait_ready(f"http://127.0.0.1:{http}/v2/health/ready")
    return Peer(server, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")


def _fastapi(folder: Path, work: Path, graph: Path) -> Peer:
    port = free_port()
    command = [str(folder / "bin" / "uvicorn"), "fastapi_app:app", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "2", "--no-access-log", "--log-level", "warning", "--app-dir", str(HERE)]
    server = Server(command, work / "log", {"GRAPH": str(graph), "OMP_NUM_THREADS": "1"})
    server.wait_ready(f"http://127.0.0.1:{port}/v2/health/ready")
    return Peer(server, f"127.0.0.1:{port}", "")


def _mlserver(folder: Path, work: Path, graph: Path) -> Peer:
    http, grpc, metrics = free_port(), free_port(), free_port()
    shutil.copy(HERE / "mlserver_runtime.py", work)
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "debug": False}
    (work / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0}), encoding="utf-8")
    model: dict[str, object] = {
        "name": "deepfm",
        "implementation": "mlserver_runtime.OnnxRuntime",
        "parameters": {"uri": str(graph)},
    }
    model |= {"max_batch_size": 64, "max_batch_time": 0.001}
    (work / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    env = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    server = Server([str(folder / "bin" / "mlserver"), "start", str(work)], work / "log", env, work)
    server.wait_ready(f"http://127.0.0.1:{http}/v2/models/deepfm/ready")
    return Peer(server, f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
