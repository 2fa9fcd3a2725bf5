"""A real Prometheus Alertmanager: the installed one, or Debian's package unpacked for the test and not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from .receivers import free_port

CONFIG = """
global: {{resolve_timeout: {resolve_timeout}}}
route: {{receiver: hook, group_by: [alertname, endpoint, severity], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: hook, webhook_configs: [{{url: "{hook}", send_resolved: true}}]}}]
templates: []
"""


@contextmanager
def alertmanager(folder: Path, hook: str, resolve_timeout: str = "5m") -> Iterator[str]:
    """Runs an Alertmanager that tells the webhook `hook`; gives its address."""
    program, share = _program(folder)
    (folder / "config.yml").write_text(CONFIG.format(hook=hook, resolve_timeout=resolve_timeout), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={folder}/config.yml", f"--storage.path={folder}/data"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address="]
    if share:  # Debian's build reads its templates from /usr/share: it is shown the unpacked ones
        command = ["unshare", "-rm", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"', str(share), *command]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_for(address, process, folder / "log")
            yield f"http://{address}"
        finally:
            process.terminate()


def alerts_at(url: str, *, active: bool = True) -> list[dict[str, Any]]:
    """The alerts that the Alertmanager at `url` holds."""
    with urlopen(f"{url}/api/v2/alerts?active={str(active).lower()}", timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


def _program(folder: Path) -> tuple[str, Path | None]:
    for name in ("prometheus-alertmanager", "alertmanager"):
        if found := shutil.which(name):
            return found, None
    fetch = "apt-get download -q prometheus-alertmanager"
    for line in (f"{fetch} || {{ apt-get update -q && {fetch}; }}", "dpkg-deb -x *.deb ."):
        done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"Alertmanager is not installed and cannot be fetched: {done.stderr[-300:]}"
    return str(folder / "usr" / "bin" / "prometheus-alertmanager"), folder / "usr" / "share"


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            with urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except (URLError, OSError):
            assert process.poll() is None, log.read_text(encoding="utf-8")[-2000:]
            assert time.monotonic() < deadline, "Alertmanager does not start"
            time.sleep(0.1)
