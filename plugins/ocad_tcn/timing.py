"""How fast, and in how much memory, a forecaster answers: torch eager beside onnxruntime, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ocad_tcn.files import InferenceFigures, model_file, read_weights, typical_windows

ROUNDS, CALLS = 15, 400

_RESIDENT = "print([int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS')][0])"
_TORCH = """
import sys, torch
from ocad_tcn.forecaster import load_forecaster
torch.set_num_threads(1)
forecaster = load_forecaster(__import__("pathlib").Path(sys.argv[1]))[0]
with torch.inference_mode():
    forecaster(torch.ones(1, forecaster.architecture.length, 1))
"""
_ONNX = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
session.run(None, {given.name: numpy.ones((1, *given.shape[1:]), numpy.float32)})
"""


def measure_inference(weights: str, graph: str, rounds: int = ROUNDS) -> InferenceFigures:
    """Times both at batch 1 on one thread, `rounds` times in turn, and weighs a fresh process of each."""
    import onnxruntime
    import torch

    torch.set_num_threads(1)
    forecaster = read_weights(weights)
    window = typical_windows(forecaster, 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model_file(graph, "onnx")), options, providers=["CPUExecutionProvider"])
    name, tensor = session.get_inputs()[0].name, torch.from_numpy(window)
    calls: tuple[Callable[[], Any], ...] = (lambda: forecaster(tensor), lambda: session.run(None, {name: window}))
    with torch.inference_mode():
        times = np.array([[microseconds(call) for call in calls] for _ in range(rounds)])
    torch_us, onnx_us = (float(value) for value in np.median(times, axis=0))
    torch_mib, onnx_mib = resident(_TORCH, model_file(weights, "weights")), resident(_ONNX, model_file(graph, "onnx"))
    return InferenceFigures(torch_us, onnx_us, torch_mib, onnx_mib)


def microseconds(call: Callable[[], Any]) -> float:
    """CPU µs of one of 400 calls."""
    call()
    start = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - start) / CALLS * 1e6


def resident(code: str, model: Path) -> float:
    """MiB resident at the end of `code` in a process of its own; the median of three."""
    command = [sys.executable, "-c", code + _RESIDENT, str(model)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    return statistics.median(int(run.split()[-1]) / 1024 for run in runs)
