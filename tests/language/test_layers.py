"""Products of language models."""

import ml_dtypes
import numpy as np
import pytest

import treadle
from treadle.expr.dtype import bf16, f32
from treadle.expr.scalar import Var
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.language.layers import narrow_product
from treadle.ops import Add, Cast


@pytest.mark.parametrize("target", ["native", "x86-64-v4", "x86-64-v3", "x86-64-v2"])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (38, 61), (7, 1)])
def test_a_product_of_narrow_floats_is_summed_in_f32(target, inputs, outputs):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs)).astype(ml_dtypes.bfloat16)
    b = GraphBuilder("main")
    x = b.input("x", tensor([Var("t"), inputs], f32))
    y = narrow_product(b, Cast(bf16)(x), b.constant("weight", weight))
    module = Module({**b.functions, "main": b.finish(Add()(y, y))}, b.constants)
    run = treadle.compile(module, target=target, threads=1)
    for t in (0, 1, 5, 33):
        rows = rng.standard_normal((t, inputs)).astype(np.float32)
        rounded = rows.astype(ml_dtypes.bfloat16).astype(np.float64)
        np.testing.assert_allclose(
            run(rows), 2 * rounded @ weight.astype(np.float64).T, rtol=1e-4, atol=1e-4
        )
