"""The peer of `registry.py`: MLflow with a sqlite store, in its own environment, driven line by line over stdin.

Each line is a JSON array `[operation, count]`; the answer is `{"wall": […], "cpu": […]}`, seconds for each call.
Run by `registry.py` alone: `python registry_mlflow.py FOLDER ARTIFACT`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

mlflow = import_module("mlflow")  # not in our own environment, where types are checked
NAME = "tcn-udp_echo"
TAGS = {
    "task": "forecast",
    "plugin": "tcn",
    "metric": "udp_echo",
    "passed": "true",
    "val_loss": "0.03",
    "mae_us": "12.25",
}


class Peer:
    """The operations, each on what a version of ours holds too."""

    def __init__(self, folder: Path, artifact: Path) -> None:
        self.client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}", f"sqlite:///{folder / 'mlflow.db'}")
        self.experiment = self.client.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
        self.client.create_registered_model(NAME)
        self.artifact = artifact

    def publish(self) -> None:
        """A run with its metrics and parameters, one artifact, and a model version with the tags that a list shows."""
        run = self.client.create_run(self.experiment).info.run_id
        metrics = [mlflow.entities.Metric("val_loss", 0.03, 0, 0), mlflow.entities.Metric("mae_us", 12.25, 0, 0)]
        self.client.log_batch(
            run, metrics, [mlflow.entities.Param("epochs", "30"), mlflow.entities.Param("channels", "32,32,32")]
        )
        self.client.log_artifact(run, str(self.artifact), "model")
        self.client.create_model_version(NAME, f"runs:/{run}/model", run, tags=TAGS)
        self.client.set_terminated(run)

    def add(self) -> None:
        """A version without a run, to fill the store."""
        self.client.create_model_version(NAME, "file:///nowhere", tags=TAGS)

    def alias(self) -> None:
        """Sets the alias that `resolve` asks for."""
        self.client.set_registered_model_alias(NAME, "production", "1")

    def resolve(self) -> None:
        """Alias → place of the artifact."""
        assert self.client.get_model_version_by_alias(NAME, "production").source

    def list(self) -> None:
        """Every version, with its tags."""
        assert self.client.search_model_versions(f"name='{NAME}'", max_results=200_000)


def measure(call: Callable[[], None], count: int) -> dict[str, list[float]]:
    wall, cpu = [], []
    for _ in range(count):
        started, used = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    return {"wall": wall, "cpu": cpu}


def main() -> None:
    peer = Peer(Path(sys.argv[1]), Path(sys.argv[2]))
    print(json.dumps({"version": mlflow.__version__}), flush=True)
    for line in sys.stdin:
        operation, count = json.loads(line)
        print(json.dumps(measure(getattr(peer, operation), count)), flush=True)


if __name__ == "__main__":
    main()
