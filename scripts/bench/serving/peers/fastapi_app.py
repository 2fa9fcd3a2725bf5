"""FastAPI over onnxruntime as it is usually written; `GRAPH` names the model. Takes and gives the protocol's JSON."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI  # type: ignore[import-not-found]
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(os.environ["GRAPH"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    """An input tensor of the protocol."""

    name: str
    shape: list[int]
    datatype: str
    data: list[int]


class Request(BaseModel):
    """An inference request of the protocol."""

    inputs: list[Tensor]


@app.get("/v2/health/ready")  # type: ignore[untyped-decorator]
async def ready() -> dict[str, bool]:
    """Answers once the session is built."""
    return {"ready": True}


@app.post("/v2/models/deepfm/infer")  # type: ignore[untyped-decorator]
async def infer(request: Request) -> dict[str, Any]:
    """Runs the rows of one request."""
    tensor = request.inputs[0]
    answer = session.run(None, {"ids": np.array(tensor.data, dtype=np.int64).reshape(tensor.shape)})[0]
    output = {"name": "probability", "shape": list(answer.shape), "datatype": "FP32", "data": answer.ravel().tolist()}
    return {"model_name": "deepfm", "outputs": [output]}
