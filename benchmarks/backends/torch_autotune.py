"""``torch.compile`` that tries many kernels, with frozen weights."""

from .torch_compile import Inductor

BACKEND = Inductor("max-autotune", freezing=True)
