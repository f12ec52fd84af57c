"""Contractions of bytes and of bf16 reach the machine's dot products, and keep their values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.codegen.llvm.kernel import kernel_text, module_text
from treadle.codegen.llvm.object import assembly
from treadle.expr.dtype import DType, bf16, f32, i8, u8
from treadle.expr.scalar import Var
from treadle.ir.analysis import blocks
from treadle.ir.interpret import run_tensor
from treadle.ir.op import Op
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops import Einsum, IntegerMatmul, Matmul
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.layout import TransformLayout
from treadle.schedule.trace import Schedule, trace_text
from treadle.target import Target
from treadle.tune.default import default_schedule
from treadle.tune.dot_schedule import schedule_dot

COOPERLAKE = Target.parse("cooperlake")
Dim = int | Var


def product(left: DType, right: DType, m: Dim, n: Dim, k: int) -> TensorFunction:
    op: Op = Matmul() if left.is_float else IntegerMatmul()
    function = op.lower(tensor([m, k], left), tensor([k, n], right))
    assert function is not None
    return function


def scheduled(
    function: TensorFunction,
    target: Target = COOPERLAKE,
    *,
    constant: bool = True,
    strict: bool = False,
) -> tuple[Schedule, bool]:
    s = Schedule(function)
    constants = frozenset(function.input_buffers[1:] if constant else ())
    name = next(b.name for b in blocks(function) if any(a.kind == "reduce" for a in b.iters))
    done = schedule_dot(s, name, target, 1, constants, strict=strict)
    verify_tensor_function(s.function)
    return s, done


def arrays_of(function: TensorFunction, m: int, n: int, k: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    result: list[np.ndarray] = []
    for buffer, shape in zip(function.input_buffers, ((m, k), (k, n)), strict=True):
        low = 0 if buffer.dtype.kind == "uint" else -8
        result.append(rng.integers(low, 9, shape).astype(buffer.dtype.numpy))
    return result


def packed(s: Schedule, weight: np.ndarray) -> np.ndarray:
    """The constant operand as the schedule wants it."""
    buffer = s.function.input_buffers[1]
    layouts = [i for i in s.trace if isinstance(i, TransformLayout) and i.buffer == buffer.name]
    for layout in layouts:
        weight = layout.layout.pack(weight, tuple(int(str(d)) for d in buffer.shape))
    return weight


@settings(max_examples=12, deadline=None)
@given(
    m=st.integers(1, 9),
    n=st.integers(16, 80),
    groups=st.integers(1, 3),
    kinds=st.sampled_from([(u8, i8, 4), (i8, i8, 4), (bf16, bf16, 2)]),
    seed=st.integers(0, 99),
)
def test_products_keep_their_values(
    m: int, n: int, groups: int, kinds: tuple[DType, DType, int], seed: int
):
    left, right, group = kinds
    function = product(left, right, m, n, groups * group)
    s, done = scheduled(function)
    assert done
    assert "dot(" in str(s.function)
    x, w = arrays_of(function, m, n, groups * group, seed)
    (expected,) = run_tensor(function, [x, w])
    for after in (s.function, lower_loops(s.function)):
        (found,) = run_tensor(after, [x, packed(s, w)], out_shapes=[(m, n)])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("m", [1, 5, 6, 17])
def test_symbolic_rows(m: int):
    function = product(u8, i8, Var("m"), 70, 16)
    s, done = scheduled(function)
    assert done
    x, w = arrays_of(function, m, 70, 16, 1)
    (expected,) = run_tensor(function, [x, w])
    final = lower_loops(s.function)
    (found,) = run_tensor(final, [x, packed(s, w)], {"m": m}, out_shapes=[(m, 70)])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kinds", "target", "mnemonic"),
    [
        ((u8, i8), "cooperlake", "vpdpbusd"),
        ((i8, i8), "cooperlake", "vpdpbusd"),
        ((bf16, bf16), "cooperlake", "vdpbf16ps"),
        ((u8, i8), "alderlake", "vpdpbusd"),
        ((u8, i8), "x86-64-v3", "vpmaddwd"),
        ((i8, i8), "neoverse-n1", "sdot"),
    ],
)
def test_the_tile_is_made_of_the_machines_dot_products(
    kinds: tuple[DType, DType], target: str, mnemonic: str
):
    machine = Target.parse(target)
    s, done = scheduled(product(*kinds, 48, 128, 64), machine)
    assert done
    text = module_text([kernel_text(lower_loops(s.function), machine)], "", machine)
    lines = assembly(text, machine).splitlines()
    products = [line for line in lines if mnemonic in line]
    assert len(products) >= 8
    # Sums stay in registers: none of the products has one on the stack.
    assert not any("rsp" in line or "rbp" in line for line in products)


@pytest.mark.parametrize("kinds", [(u8, i8), (bf16, bf16)])
def test_the_default_schedule_uses_them(kinds: tuple[DType, DType]):
    function = product(*kinds, 48, 128, 64)
    constants = frozenset(function.input_buffers[1:])
    assert "dot(" in str(default_schedule(function, COOPERLAKE, 2, constants).function)


def test_other_machines_and_types_take_the_common_road():
    assert not scheduled(product(u8, i8, 8, 16, 16), Target.parse("x86-64-v2"))[1]
    assert not scheduled(product(bf16, bf16, 8, 16, 16), Target.parse("x86-64-v4"))[1]
    assert not scheduled(product(f32, f32, 8, 16, 16))[1]
    assert not scheduled(product(u8, u8, 8, 16, 16))[1]


def test_fewer_columns_than_lanes_take_the_common_road():
    assert not scheduled(product(u8, i8, 8, 15, 16))[1]


def test_steps_that_make_no_whole_group_take_the_common_road():
    assert not scheduled(product(u8, i8, 8, 16, 13))[1]


def test_strict_sums_of_floats_keep_their_order():
    assert not scheduled(product(bf16, bf16, 8, 16, 16), strict=True)[1]
    assert scheduled(product(u8, i8, 8, 16, 16), strict=True)[1]


def test_an_operand_that_is_no_constant_is_packed_for_many_rows_only():
    assert not scheduled(product(u8, i8, 4, 64, 16), constant=False)[1]
    function = product(u8, i8, 40, 64, 16)
    s, done = scheduled(function, constant=False)
    assert done
    x, w = arrays_of(function, 40, 64, 16, 3)
    (expected,) = run_tensor(function, [x, w])
    assert "interleave_i8_4x16" in trace_text(s.trace)
    (found,) = run_tensor(lower_loops(s.function), [x, w], out_shapes=[(40, 64)])
    np.testing.assert_array_equal(found, expected)


def turned(n: Dim) -> TensorFunction:
    """Scores of attention: both operands hold the steps of the sum together."""
    function = Einsum("qd,kd->qk").lower(tensor([n, 32], bf16), tensor([n, 32], bf16))
    assert function is not None
    return function


@pytest.mark.parametrize("n", [40, 64])
def test_an_operand_that_lies_the_other_way_is_packed_by_transposes(n: int):
    function = turned(n)
    s, done = scheduled(function, constant=False)
    assert done
    assert "transpose_bf16_2x16x16" in trace_text(s.trace)
    x, w = (a.T.copy() if i else a for i, a in enumerate(arrays_of(function, n, n, 32, 3)))
    (expected,) = run_tensor(function, [x, w])
    (found,) = run_tensor(lower_loops(s.function), [x, w], out_shapes=[(n, n)])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n", [1, 33, 64])
def test_symbolic_columns(n: int):
    function = turned(Var("n"))
    s, done = scheduled(function, constant=False)
    assert done
    x, w = (a.T.copy() if i else a for i, a in enumerate(arrays_of(function, n, n, 32, 3)))
    (expected,) = run_tensor(function, [x, w])
    final = lower_loops(s.function)
    (found,) = run_tensor(final, [x, w], {"n": n}, out_shapes=[(n, n)])
    np.testing.assert_array_equal(found, expected)
