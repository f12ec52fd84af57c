"""OpenVINO on the exported model, in f32 and for the shortest time of one call."""

import time
from importlib.metadata import version

import ml_dtypes
import numpy as np
import openvino

from .backend import Job, Prepared, Unsupported


class OpenVino:
    """An inference request on the CPU."""

    version = version("openvino")

    def prepare(self, job: Job) -> Prepared:
        """Read and compile the model."""
        if not job.onnx.exists():
            raise Unsupported("no ONNX model")
        brain = "bfloat16" in job.facts["dtypes"]
        options = {
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if brain else "f32",
            "ENABLE_CPU_PINNING": False,  # the process is pinned already
        }
        start = time.perf_counter()
        compiled = openvino.Core().compile_model(str(job.onnx), "CPU", options)
        seconds = time.perf_counter() - start
        request = compiled.create_infer_request()
        feeds = dict(enumerate(tensor(x) for x in job.inputs()))
        return Prepared(
            call=lambda: request.infer(feeds, share_outputs=True),
            arrays=lambda found: [np.array(found[k]) for k in range(len(compiled.outputs))],
            stages={"compile": seconds},
        )


def tensor(array: np.ndarray) -> openvino.Tensor:
    """A tensor on the array's memory; bfloat16 goes in as the bits that it is."""
    if array.dtype == ml_dtypes.bfloat16:
        return openvino.Tensor(array.view(np.uint16), array.shape, openvino.Type.bf16)
    return openvino.Tensor(array, shared_memory=True)


BACKEND = OpenVino()
