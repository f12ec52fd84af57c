"""``torch.compile`` with its defaults."""

import time
from importlib.metadata import version

import torch
import torch._inductor.config as inductor

from .backend import Job, Prepared, tensors


class Inductor:
    """A mode of ``torch.compile``.

    With ``freezing`` it treats weights as constants and packs them, which its tuned products need.
    """

    version = version("torch")

    def __init__(self, mode: str, freezing: bool) -> None:
        self.mode = mode
        self.freezing = freezing

    def prepare(self, job: Job) -> Prepared:
        """Compile by a first call."""
        torch.set_num_threads(job.threads)
        torch.set_grad_enabled(False)
        torch._dynamo.reset()
        inductor.freezing = self.freezing
        case = job.case()
        inputs = case.inputs
        start = time.perf_counter()
        compiled = torch.compile(case.module, dynamic=False, mode=self.mode)
        compiled(*inputs)
        return Prepared(
            call=lambda: compiled(*inputs),
            arrays=tensors,
            stages={"compile": time.perf_counter() - start},
        )


BACKEND = Inductor("default", freezing=False)
