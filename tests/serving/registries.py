"""Registries for the server's tests: graphs published with the real registry package."""

from __future__ import annotations

from pathlib import Path

from tests.serving.graphs import Graph, Port

from ocad.export.onnx import write_onnx
from ocad_registry import Artifact, Draft, GateResult, Parity, PluginReference, Registry, Signature, Tensor, Version


def publish(
    root: Path | str,
    name: str,
    graph: Graph,
    version: str | None = None,
    passed: bool = True,
    folder: Path | None = None,
    batchable: bool | None = True,
) -> Version:
    """Publishes `graph`, written beside the registry or in `folder` first; its gate fails unless `passed`.

    `batchable` is what its signature claims, proven or not.
    """
    folder = folder or Path(f"{root}-build")
    folder.mkdir(parents=True, exist_ok=True)
    files = write_onnx(graph.model, folder / "model.onnx")
    artifacts = [Artifact(file.path, file.role, file.media_type) for file in files]
    return Registry(root).publish(draft(name, graph, passed, batchable), artifacts, version)


def publish_without_graph(root: Path, name: str) -> Version:
    """Publishes a version that has an estimator and no ONNX."""
    path = root.parent / "estimator.skops"
    path.write_bytes(b"not for the server")
    return Registry(root).publish(draft(name, None, True), [Artifact(path, "estimator")])


def draft(name: str, graph: Graph | None, passed: bool, batchable: bool | None = True) -> Draft:
    """What a run would register."""
    loss = 0.5 if passed else 2.0
    return Draft(
        name=name,
        plugin=PluginReference(name="test", version="1", package="test"),
        task="forecast" if graph else "detect",
        signature=Signature(
            inputs=[_tensor(port) for port in graph.inputs],
            outputs=[_tensor(port, scale=1.0) for port in graph.outputs],
            batchable=batchable,
        )
        if graph
        else None,
        metrics={"loss": loss},
        gates=[GateResult(name="loss", metric="loss", op="<", threshold=1.0, observed=loss, passed=passed)],
        parity=Parity(reference="test", samples=1, max_scaled_diff=0.0, tolerance=1e-5, passed=True),
    )


def flip(path: Path, position: int = -100) -> None:
    """Changes one byte of a published file, as a bad disk would: size and name stay."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def _tensor(port: Port, scale: float | None = None) -> Tensor:
    found: Tensor = Tensor.model_validate(
        {"name": port.name, "dtype": port.datatype, "shape": port.shape, "scale": scale}
    )
    return found
