"""Blocks without reductions: lanes where there is something to fill them, threads where it pays."""

import numpy as np

from treadle.expr.dtype import f32
from treadle.ir.analysis import blocks, enclosing_loops
from treadle.ir.interpret import run_tensor
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops.pad import Pad
from treadle.target import Target
from treadle.tune.default import default_schedule

TARGET = Target.parse("x86-64-v4")


def padded(size: int, channels: int):
    """A border around an image with channels last."""
    op = Pad(((1, 1), (1, 1), (0, 0)), value=2.0)
    function = op.lower(tensor((size, size, channels), f32))
    found = default_schedule(function, TARGET, 2, frozenset()).function
    verify_tensor_function(found)
    return op, found


def test_columns_of_a_border_are_filled_in_vectors():
    op, found = padded(5, 32)
    for block in blocks(found):
        assert enclosing_loops(found, block)[-1].kind == "vectorized"
    x = np.random.default_rng(0).standard_normal((5, 5, 32)).astype(np.float32)
    np.testing.assert_array_equal(run_tensor(found, [x])[0], op.reference(x))


def test_threads_share_the_inside_but_not_the_border():
    _, found = padded(60, 128)
    shared = [
        block.name
        for block in blocks(found)
        if any(x.kind == "parallel" for x in enclosing_loops(found, block))
    ]
    assert shared == ["Y0"]
