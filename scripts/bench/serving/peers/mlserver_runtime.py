"""An MLServer runtime over onnxruntime; MLServer's adaptive batching joins the requests."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class OnnxRuntime(MLModel):  # type: ignore[misc]
    """One session of one thread."""

    async def load(self) -> bool:
        """Builds the session over the graph that `model-settings.json` names."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Runs the rows of one batch."""
        answer = self.session.run(None, {"ids": NumpyCodec.decode_input(payload.inputs[0])})[0]
        output = NumpyCodec.encode_output("probability", answer)
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])
