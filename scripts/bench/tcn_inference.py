"""TCN inference at batch 1: onnxruntime beside torch eager, time in turn and resident memory of a fresh process."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from report import machine, write_section
from tcn_training import Peer, load_peer, make_material

from ocad_tcn.files import convert
from ocad_tcn.fitting import View, fit_forecaster
from ocad_tcn.forecaster import save_forecaster
from ocad_tcn.timing import measure_inference, microseconds


def main() -> None:
    """Trains for an epoch, exports, measures and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-write", action="store_true", help="print the section, leave docs/benchmarks.md alone")
    options = parser.parse_args()
    material = make_material(epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        forecaster, _ = fit_forecaster(material, View("standard", True), material.config.train, Path(folder), seed=7)
        weights, graph = Path(folder) / "model.pth", Path(folder) / "model.onnx"
        save_forecaster(weights, forecaster, "udp_echo")
        convert(str(weights), graph, (1, material.config.windows.length, 1))
        figures = measure_inference(str(weights), str(graph), options.rounds)
    network, version = load_peer()
    peer, window = Peer(network).eval(), torch.ones(1, material.config.windows.length, 1)
    with torch.inference_mode():
        peer_us = sorted(microseconds(lambda: peer(window)) for _ in range(options.rounds))[options.rounds // 2]
    body = "\n".join(
        [
            f"{machine()}, one thread, CPU time, medians of {options.rounds} rounds in turn.",
            "Bars: at least 10 × faster, at least 70 % less resident memory.",
            "",
            figures.markdown(),
            "",
            f"The textbook network (pytorch-tcn {version}, every position computed) in torch eager takes {peer_us:.0f} µs:",
            f"onnxruntime is {peer_us / figures.onnx_us:.1f} × faster than that. Torch eager of the plugin is itself",
            f"{peer_us / figures.torch_us:.1f} × faster than the textbook network.",
        ]
    )
    print(body)
    if not options.no_write:
        write_section("tcn-inference", "TCN: inference at batch 1", body)


if __name__ == "__main__":
    main()
