import numpy as np
import pytest

import treadle
from treadle.expr.dtype import f32, i32, i64
from treadle.expr.scalar import Var
from treadle.ir.calls import CallTensor
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.parser import parse
from treadle.ir.types import tensor
from treadle.language.decoding import decoded, decoded_rows
from treadle.language.quantize import KINDS, Kind, QuantizedWeight, dequantized, quantized
from treadle.ops import OPS_BY_NAME, Add, Matmul, Relu
from treadle.passes.fuse import fuse
from treadle.passes.legalize import legalize


def weight_of(kind: Kind, inputs: int, outputs: int) -> QuantizedWeight:
    rng = np.random.default_rng(inputs * 1000 + outputs)
    return quantized(rng.standard_normal((outputs, inputs), np.float32), kind)


def module_of(b: GraphBuilder, *results: Traced) -> Module:
    return Module({**b.functions, "main": b.finish(*results)}, b.constants)


def product(kind: Kind, inputs: int, outputs: int) -> tuple[Module, QuantizedWeight]:
    """relu(x @ W + b), of any number of rows."""
    weight = weight_of(kind, inputs, outputs)
    b = GraphBuilder("main")
    x = b.input("x", tensor([Var("t"), inputs], f32))
    y = Matmul()(x, decoded(b, weight))
    bias = b.constant("bias", np.linspace(-1, 1, outputs, dtype=np.float32))
    return module_of(b, Relu()(Add()(y, bias))), weight


def test_relax_figure_9_a_custom_decode_is_fused_into_the_product():
    module, weight = product("int4", 64, 48)
    fused = fuse(legalize(module))
    (binding,) = fused.graph("main").body
    assert isinstance(binding.op, CallTensor)
    assert [a.name for a in binding.args] == ["weight_codes", "weight_scales", "x", "bias"]
    x = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    (expected,), (found,) = (run(m, "main", x) for m in (module, fused))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    bias = np.linspace(-1, 1, 48, dtype=np.float32)
    direct = np.maximum(x @ dequantized(weight).T + bias, 0)
    np.testing.assert_allclose(found, direct, rtol=1e-4, atol=1e-5)


def test_weights_stay_packed_in_the_compiled_program():
    module, weight = product("int4", 512, 512)
    exe = treadle.compile(module, threads=1)
    memory = exe.memory(t=1)
    assert memory.weights <= weight.nbytes + 512 * 4
    assert memory.arena < 512 * 512


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (31, 17), (33, 5), (64, 130)])
def test_decoding_gives_the_values_of_the_codes(kind: Kind, inputs: int, outputs: int):
    weight = weight_of(kind, inputs, outputs)
    b = GraphBuilder("main")
    module = module_of(b, decoded(b, weight))
    (found,) = run(module, "main")
    np.testing.assert_array_equal(found, dequantized(weight).T)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [i32, i64])
def test_rows_are_decoded_after_they_are_gathered(kind: Kind, dtype):
    weight = weight_of(kind, 40, 11)
    b = GraphBuilder("main")
    places = b.input("places", tensor([Var("t")], dtype))
    module = module_of(b, decoded_rows(b, weight, places))
    rows = np.array([3, 0, 10, 3, -1], dtype.numpy)
    (found,) = run(module, "main", rows)
    np.testing.assert_array_equal(found, dequantized(weight)[rows])
    np.testing.assert_array_equal(treadle.compile(module)(rows), found)
    (beyond,) = run(module, "main", np.array([99], dtype.numpy))
    np.testing.assert_array_equal(beyond, dequantized(weight)[[10]])


def test_weights_of_one_shape_share_a_function():
    b = GraphBuilder("main")
    x = b.input("x", tensor([2, 64], f32))
    for _ in range(3):
        x = Matmul()(x, decoded(b, weight_of("int4", 64, 64)))
    assert len(b.functions) == 1
    fused = fuse(legalize(module_of(b, x)))
    assert len({binding.op.function for binding in fused.graph("main").body}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_reads_back(kind: Kind):
    module, _ = product(kind, 33, 6)
    data = {name: c.array for name, c in module.constants.items()}
    assert str(parse(str(module), OPS_BY_NAME, data)) == str(module)


def test_a_decoding_with_two_readers_is_done_once_for_both():
    weight = weight_of("int8", 16, 16)
    b = GraphBuilder("main")
    x = b.input("x", tensor([4, 16], f32))
    w = decoded(b, weight)
    module = module_of(b, Matmul()(x, w), Add()(w, w))
    x_value = np.random.default_rng(2).standard_normal((4, 16), np.float32)
    product_, twice = treadle.compile(module)(x_value)
    np.testing.assert_allclose(product_, x_value @ dequantized(weight).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(twice, 2 * dequantized(weight).T)
