"""ONNX Runtime on the exported model, all of its graph optimizations on."""

import time

import onnxruntime

from .backend import Job, Prepared, Unsupported, arrays_in_order


class Runtime:
    """A session on the CPU."""

    version = onnxruntime.__version__

    def prepare(self, job: Job) -> Prepared:
        """Open a session."""
        if not job.onnx.exists():
            raise Unsupported("no ONNX model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        start = time.perf_counter()
        session = onnxruntime.InferenceSession(
            job.onnx, options, providers=["CPUExecutionProvider"]
        )
        opened = time.perf_counter() - start
        names = [x.name for x in session.get_inputs()]
        feeds = dict(zip(names, job.inputs(), strict=True))
        return Prepared(
            call=lambda: session.run(None, feeds),
            arrays=arrays_in_order,
            stages={"compile": opened},
        )


BACKEND = Runtime()
