"""Packing for a product: by transposes where the operand lies the other way."""

import numpy as np
import pytest

from treadle.driver import compile as compile_module
from treadle.expr.dtype import bf16, f32
from treadle.expr.scalar import int_value
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.module import Module
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops.contraction import Einsum
from treadle.ops.convolution import ConvTranspose
from treadle.target import Target
from treadle.tune.default import default_schedule

SCORES = Einsum("ihd,jhd->hij")


def scheduled(length: int, width: int) -> TensorFunction:
    types = (tensor((length, 2, width), f32),) * 2
    function = SCORES.lower(*types)
    assert function is not None
    found = default_schedule(function, Target.parse("x86-64-v4"), 1, frozenset()).function
    verify_tensor_function(found)
    return found


def test_an_operand_that_lies_the_other_way_is_packed_by_transposes():
    assert "shuffle(" in str(scheduled(64, 32))


def test_half_precision_is_gathered():
    types = (tensor((64, 2, 32), bf16),) * 2
    function = SCORES.lower(*types)
    assert function is not None
    found = default_schedule(function, Target.parse("x86-64-v3"), 1, frozenset()).function
    assert "shuffle(" not in str(found)


@pytest.mark.parametrize(("length", "width"), [(64, 32), (80, 48), (50, 20)])
def test_packed_products_are_the_products(length, width):
    random = np.random.default_rng(2)
    q, k = (random.standard_normal((length, 2, width), np.float32) for _ in range(2))
    b = GraphBuilder("main")
    y = SCORES(*(b.input(n, tensor(x.shape, f32)) for n, x in (("q", q), ("k", k))))
    exe = compile_module(Module({"main": b.finish(y)}), threads=2)
    np.testing.assert_allclose(exe(q, k), SCORES.reference(q, k), rtol=1e-4, atol=1e-4)


def test_the_weights_of_each_phase_of_a_transposed_convolution_are_packed_together():
    op = ConvTranspose((2, 2), ((1, 1),) * 2, (0, 0), (1, 1))
    function = op.lower(tensor((1, 8, 16, 16), f32), tensor((8, 64, 4, 4), f32))
    weight = next(b for b in function.input_buffers if b.name == "W")
    target = Target.parse("x86-64-v4")
    found = default_schedule(function, target, 1, frozenset({weight})).function
    (packed,) = (b for b in found.input_buffers if b.name == "W")
    assert tuple(map(int_value, packed.shape)) == (2, 2, 1, 8, 2, 2, 64)
