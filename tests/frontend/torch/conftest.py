"""Import a function of tensors, run it by the interpreter, and compare with eager PyTorch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from treadle.frontend.torch import Imported, import_module
from treadle.frontend.torch.dtypes import to_numpy, to_tensor
from treadle.ir.interpret import run


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs: Any) -> Any:
        return self.function(*xs)


def results_of(imported: Imported, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    """What the interpreter gives for ``main``."""
    arrays = [to_numpy(x.contiguous()) for x in inputs if isinstance(x, torch.Tensor)]
    found = run(imported.module, "main", *arrays, libraries=imported.libraries)
    return [to_tensor(np.ascontiguousarray(y).reshape(y.shape)) for y in found]


def assert_equal(
    imported: Imported,
    model: Callable[..., Any],
    inputs: tuple[Any, ...],
    names: Sequence[str] = (),
    **tolerance: float,
) -> None:
    """The interpreter and eager PyTorch agree on ``inputs``, in values, shapes and dtypes.

    ``names`` names the parts of what the model returns, for messages.
    """
    with torch.no_grad():
        wanted = model(*inputs)
    parts = zip(names, wanted, strict=True) if names else [("the result", wanted)]
    expected = [
        (name, y)
        for name, part in parts
        for y in torch.utils._pytree.tree_leaves(part)
        if y is not None
    ]
    found = results_of(imported, inputs)
    assert len(found) == len(expected)
    for mine, (name, theirs) in zip(found, expected, strict=True):
        reference = theirs if isinstance(theirs, torch.Tensor) else torch.tensor(theirs)
        torch.testing.assert_close(
            mine,
            reference,
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
            **tolerance,
        )


@pytest.fixture
def agrees() -> Callable[..., Imported]:
    """Import a function for some inputs and dynamic shapes, and compare it with PyTorch."""

    def check(
        function: Callable[..., Any],
        *inputs: Any,
        dynamic_shapes: Any = None,
        others: tuple[Any, ...] | None = None,
        names: Sequence[str] = (),
        **tolerance: float,
    ) -> Imported:
        model = Function(function)
        shapes = None if dynamic_shapes is None else (dynamic_shapes,)
        imported = import_module(model, inputs, shapes)
        assert_equal(imported, model, inputs, names, **tolerance)
        if others is not None:
            assert_equal(imported, model, others, names, **tolerance)
        return imported

    return check
