"""ONNX Runtime with its own operators for language models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from ..onnx_file import write_onnx
from .peer import Unable


class Runtime:
    """A session; what it returns of the cache is passed in again."""

    def __init__(self, folder: Path, kind: str, threads: int) -> None:
        if kind == "bf16":
            raise Unable(kind)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(write_onnx(folder, kind)), options, providers=["CPUExecutionProvider"]
        )
        self.begin()

    def begin(self) -> None:
        self.length = 0
        self.past = {
            x.name: np.zeros((1, x.shape[1], 0, x.shape[3]), np.float32)
            for x in self.session.get_inputs()[3:]
        }

    def take(self, tokens: Sequence[int]) -> np.ndarray:
        self.length += len(tokens)
        given = {
            "tokens": np.array([list(tokens)]),
            "length": np.array([self.length - 1], np.int32),
            "total": np.array(self.length, np.int32),
        }
        logits, *cache = self.session.run(None, {**given, **self.past})
        self.past = dict(zip(self.past, cache, strict=True))
        return logits[0, -1]


PEER = Runtime
