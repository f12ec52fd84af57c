"""PyTorch as it is."""

from importlib.metadata import version

import torch

from .backend import Job, Prepared, tensors


class Eager:
    """The module itself, without gradients."""

    version = version("torch")

    def prepare(self, job: Job) -> Prepared:
        """Nothing to compile."""
        torch.set_num_threads(job.threads)
        torch.set_grad_enabled(False)
        case = job.case()
        module, inputs = case.module, case.inputs
        return Prepared(call=lambda: module(*inputs), arrays=tensors, stages={})


BACKEND = Eager()
