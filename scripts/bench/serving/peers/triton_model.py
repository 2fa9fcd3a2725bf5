"""Triton's python backend running onnxruntime: the requests of a batch are joined, run once and split."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils  # type: ignore[import-not-found]


class TritonPythonModel:
    """One instance: one session of one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Builds the session over the graph that the configuration names."""
        path = json.loads(args["model_config"])["parameters"]["graph"]["string_value"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all requests that Triton batched."""
        inputs = [utils.get_input_tensor_by_name(request, "ids").as_numpy() for request in requests]
        joined = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        answer = self.session.run(None, {"ids": joined})[0]
        ends = np.cumsum([len(rows) for rows in inputs])[:-1]
        return [
            utils.InferenceResponse([utils.Tensor("probability", np.ascontiguousarray(rows))])
            for rows in np.split(answer, ends)
        ]
