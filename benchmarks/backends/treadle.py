"""Treadle, through ``torch.export``, with nothing tuned and fixed shapes."""

import time
from importlib.metadata import version

import torch

import treadle
import treadle.driver
import treadle.frontend.torch

from .backend import Job, Prepared, tensors


class Treadle:
    """``treadle.compile`` on the exported program."""

    version = version("treadle")

    def prepare(self, job: Job) -> Prepared:
        """Export, which is PyTorch's work, then compile."""
        case = job.case()
        start = time.perf_counter()
        with torch.no_grad():
            program = torch.export.export(case.module, case.inputs)
        exported = time.perf_counter()
        exe = treadle.compile(program, threads=job.threads)
        compiled = time.perf_counter()
        inputs = case.inputs
        return Prepared(
            call=lambda: exe(*inputs),
            arrays=tensors,
            stages={"export": exported - start, "compile": compiled - exported},
            profile=lambda: str(exe.profile(*inputs)),
        )


BACKEND = Treadle()
