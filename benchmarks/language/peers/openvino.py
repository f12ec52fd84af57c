"""OpenVINO on the same ONNX file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from ..onnx_file import write_onnx


class Compiled:
    """A compiled model; what it returns of the cache is passed in again. For bf16 it is told to
    compute so.
    """

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        core = openvino.Core()
        path = write_onnx(folder, "f32" if kind == "bf16" else kind)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
        }
        self.model = core.compile_model(core.read_model(path), "CPU", settings)
        self.request = self.model.create_infer_request()
        self.begin()

    def begin(self) -> None:
        self.length = 0
        self.past = [
            np.zeros(
                (1, x.partial_shape[1].get_length(), 0, x.partial_shape[3].get_length())
            ).astype(np.float32)
            for x in self.model.inputs[3:]
        ]

    def take(self, tokens: Sequence[int]) -> np.ndarray:
        self.length += len(tokens)
        given = [
            np.array([list(tokens)]),
            np.array([self.length - 1], np.int32),
            np.array(self.length, np.int32),
        ]
        found = self.request.infer([*given, *self.past], share_inputs=True)
        logits, *cache = (found[x] for x in self.model.outputs)
        self.past = [x.copy() for x in cache]
        return logits[0, -1].copy()


PEER = Compiled
