"""Products of all forms find their intrinsic by the axes that occur in them, without a rule for any
operator.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from treadle.expr.dtype import DType, bf16, f32, f64, i8, i32, u8
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Expr, ExprLike, Var, as_expr, cast
from treadle.ir.analysis import blocks
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op
from treadle.ir.tensor import Block, Buffer, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops import Conv, Einsum, Matmul
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.intrinsics import find_intrinsic
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.auto_tensorize import (
    Candidate,
    auto_tensorize,
    candidates,
    candidates_of,
    native_products,
)

V4 = Target.parse("x86-64-v4")
COOPERLAKE = Target.parse("cooperlake")


def product_block(function: TensorFunction) -> Block:
    return next(b for b in blocks(function) if any(a.kind == "reduce" for a in b.iters))


def lowered(op: Op, *types: TensorType) -> Block:
    function = op.lower(*types)
    assert function is not None
    return product_block(function)


def typed(dtype: DType, *dims: ExprLike | str) -> TensorType:
    return tensor([Var(d) if isinstance(d, str) else d for d in dims], dtype)


def named(candidate: Candidate) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(a.var.name for a in group) for group in candidate.groups)


def sizes(candidate: Candidate) -> tuple[tuple[str, ...], ...]:
    """The extents of the axes that are fused to rows, columns and steps."""
    return tuple(tuple(str(a.extent) for a in group) for group in candidate.groups)


def nhwc(stride: int = 1, dilation: int = 1, symbol: bool = False) -> Block:
    """The block of ``nhwc_function``."""
    return product_block(nhwc_function(stride, dilation, symbol))


def nhwc_function(
    stride: int = 1, dilation: int = 1, symbol: bool = False, count: int = 7
) -> TensorFunction:
    """A convolution with channels last: X (n, h, w, c), W (rh, rw, c, o)."""
    b = LoopBuilder("nhwc")
    n: ExprLike = Var("n") if symbol else 2
    reach = dilation * 2 + 1
    size = (count - 1) * stride + reach
    x = b.input(typed(f32, n, size, size, 16), "X")
    w = b.input(typed(f32, 3, 3, 16, 32), "W")
    y = b.output((n, count, count, 32), f32, "Y")

    def term(*i: Expr) -> Expr:
        bn, h, v, o, rh, rw, rc = i
        row, column = h * stride + rh * dilation, v * stride + rw * dilation
        return x[bn, row, column, rc] * w[rh, rw, rc, o]

    b.reduce(y, (3, 3, 16), term)
    return b.build()


class TestConvolutions:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("dilation", [1, 2])
    def test_channels_last(self, stride: int, dilation: int):
        best = candidates(nhwc(stride, dilation), V4)[0]
        assert best.intrin.name == "fma_f32_4x16x1"
        assert sizes(best) in (
            (("2", "7", "7"), ("32",), ("3", "3", "16")),
            (("32",), ("2", "7", "7"), ("3", "3", "16")),
        )
        assert best.batch == ()

    def test_a_symbolic_batch(self):
        groups = [sizes(c) for c in candidates(nhwc(symbol=True), V4)]
        assert (("n", "7", "7"), ("32",), ("3", "3", "16")) in groups

    @pytest.mark.parametrize("dilation", [1, 2])
    def test_channels_first(self, dilation: int):
        op = Conv((1, 1), ((0, 0), (0, 0)), (dilation, dilation))
        block = lowered(op, typed(f32, 2, 16, 9, 9), typed(f32, 32, 16, 3, 3))
        found = candidates(block, V4)
        size = str(9 - 2 * dilation)
        wanted = (("2", size, size), ("32",), ("16", "3", "3"))
        assert wanted in [sizes(c) for c in found]
        assert (wanted[1], wanted[0], wanted[2]) in [sizes(c) for c in found]

    def test_groups_are_a_batch(self):
        op = Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 4)
        block = lowered(op, typed(f32, 2, 16, 8, 8), typed(f32, 32, 4, 3, 3))
        best = candidates(block, V4)[0]
        assert [str(a.extent) for a in best.batch] == ["4"]
        assert {"8"} in [set(group) for group in sizes(best)[:2]]

    def test_depthwise_has_no_product(self):
        op = Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 16)
        block = lowered(op, typed(f32, 2, 16, 8, 8), typed(f32, 16, 1, 3, 3))
        assert candidates(block, V4) == ()

    def test_one_and_three_dimensions(self):
        line = lowered(Conv((1,), ((0, 0),), (1,)), typed(f32, 2, 8, 20), typed(f32, 16, 8, 3))
        solid = lowered(
            Conv((1,) * 3, ((0, 0),) * 3, (1,) * 3),
            typed(f32, 2, 8, 6, 6, 6),
            typed(f32, 16, 8, 3, 3, 3),
        )
        assert candidates(line, V4)
        assert candidates(solid, V4)


class TestProducts:
    def test_a_matmul_needs_no_copies(self):
        block = lowered(Matmul(), typed(f32, 64, 48), typed(f32, 48, 32))
        best = candidates(block, V4)[0]
        assert sizes(best) == (("64",), ("32",), ("48",))
        assert best.moved(frozenset()) == 0

    def test_a_batch_stays_around(self):
        block = lowered(Matmul(), typed(f32, 5, 7, 64, 48), typed(f32, 5, 7, 48, 32))
        best = candidates(block, V4)[0]
        assert [str(a.extent) for a in best.batch] == ["5", "7"]
        assert sizes(best) == (("64",), ("32",), ("48",))

    @pytest.mark.parametrize(
        ("equation", "shapes", "batch"),
        [
            ("bhqd,bhkd->bhqk", ((2, 3, 8, 16), (2, 3, 9, 16)), ("2", "3")),
            ("bqhd,bkhd->bhqk", ((2, 8, 3, 16), (2, 9, 3, 16)), ("2", "3")),
            ("abc,dcb->ad", ((4, 5, 6), (7, 6, 5)), ()),
            ("ab,bc->ca", ((4, 5), (5, 6)), ()),
        ],
    )
    def test_einsums(
        self, equation: str, shapes: Sequence[tuple[int, ...]], batch: tuple[str, ...]
    ):
        block = lowered(Einsum(equation), *(typed(f32, *s) for s in shapes))
        found = candidates(block, V4)
        assert found
        assert {tuple(str(a.extent) for a in c.batch) for c in found} == {batch}

    def test_what_is_no_product_finds_none(self):
        b = LoopBuilder("sums")
        x, y = b.input(typed(f32, 8, 9), "X"), b.output((8,), f32, "Y")
        b.reduce(y, (9,), lambda i, j: x[i, j])
        assert candidates(product_block(b.build()), V4) == ()

    def test_a_type_without_intrinsic_finds_none(self):
        block = lowered(Matmul(), typed(f64, 8, 8), typed(f64, 8, 8))
        assert candidates(block, V4) == ()


def narrow(left: DType, right: DType, total: DType) -> Block:
    return product_block(narrow_function(left, right, total))


def narrow_function(left: DType, right: DType, total: DType, steps: int = 12) -> TensorFunction:
    b = LoopBuilder("narrow")
    x, w = b.input(typed(left, 8, steps), "A"), b.input(typed(right, steps, 16), "B")
    y = b.output((8, 16), total, "C")
    b.reduce(y, (steps,), lambda i, j, k: cast(x[i, k], total) * cast(w[k, j], total))
    return b.build()


class TestNarrowTypes:
    @pytest.mark.parametrize(
        ("kinds", "name"),
        [
            ((bf16, bf16, f32), "dot_bf16_4x16x2"),
            ((u8, i8, i32), "dot_u8i8_4x16x4"),
            ((i8, i8, i32), "dot_i8i8_4x16x4"),
        ],
    )
    def test_they_find_the_machines_dot_products(
        self, kinds: tuple[DType, DType, DType], name: str
    ):
        block = narrow(*kinds)
        assert candidates(block, COOPERLAKE)[0].intrin.name == name
        assert candidates(block, Target.parse("x86-64-v2")) == ()

    def test_signed_by_unsigned_is_the_transposed_product(self):
        (only,) = candidates(narrow(i8, u8, i32), COOPERLAKE)
        assert only.intrin.name == "dot_u8i8_4x16x4"
        assert sizes(only) == (("16",), ("8",), ("12",))


def test_intrinsics_of_a_target_are_its_own():
    def names(target: str) -> set[str]:
        return {x.name for x in native_products(Target.parse(target))}

    assert names("x86-64-v2") == {"fma_f32_4x4x1"}
    assert names("x86-64-v3") == {"fma_f32_4x8x1", "dot_u8i8_4x8x4", "dot_i8i8_4x8x4"}
    assert names("alderlake") == {"fma_f32_4x8x1", "dot_u8i8_4x8x4", "dot_i8i8_4x8x4"}
    assert names("neoverse-n1") == {"fma_f32_4x4x1", "dot_i8i8_4x4x4"}


def test_a_transpose_finds_its_axes_too():
    b = LoopBuilder("turn")
    x = b.input(TensorType((as_expr(8), as_expr(6), as_expr(4)), 3, f32), "X")
    y = b.output((4, 6, 8), f32, "Y")
    b.compute(y, lambda i, j, k: x[k, j, i])
    intrin = find_intrinsic("transpose_f32_4x4")
    assert intrin is not None
    (block,) = blocks(b.build())
    # Both of its axes occur in both buffers: the vectors do not tell them apart.
    assert candidates_of(block, intrin) == ()


def values(buffer: Buffer, sizes_of: dict[str, int], seed: int) -> np.ndarray:
    """Small numbers, whose sums of products are exact."""
    dims = [evaluate(d, {Var(k): v for k, v in sizes_of.items()}) for d in buffer.shape]
    rng = np.random.default_rng(seed)
    low = 0 if buffer.dtype.kind == "uint" else -4
    return rng.integers(low, 5, tuple(int(d) for d in dims)).astype(buffer.dtype.numpy)


def check_scheduled(function: TensorFunction, target: Target = V4, **sizes_of: int) -> str:
    """Schedule the product by its first candidate; the results must stay, the text is given."""
    block = product_block(function)
    s = Schedule(function)
    auto_tensorize(s, block.name, candidates(block, target)[0], target)
    verify_tensor_function(s.function)
    arrays = [values(b, sizes_of, n) for n, b in enumerate(function.input_buffers)]
    expected = run_tensor(function, arrays, sizes_of)
    shapes = [x.shape for x in expected]
    for after in (s.function, lower_loops(s.function)):
        for a, b in zip(
            expected, run_tensor(after, arrays, sizes_of, out_shapes=shapes), strict=True
        ):
            np.testing.assert_array_equal(b, a)
    return str(s.function)


def whole(op: Op, *types: TensorType) -> TensorFunction:
    function = op.lower(*types)
    assert function is not None
    return function


class TestScheduling:
    @pytest.mark.parametrize("dilation", [1, 2])
    def test_convolutions_of_channels_last(self, dilation: int):
        text = check_scheduled(nhwc_function(dilation=dilation, count=3))
        assert "broadcast(" in text

    def test_convolutions_of_channels_first(self):
        op = Conv((2, 1), ((1, 1), (1, 1)), (1, 1))
        check_scheduled(whole(op, typed(f32, 1, 5, 8, 7), typed(f32, 20, 5, 3, 3)))

    def test_groups(self):
        op = Conv((1, 1), ((1, 1), (0, 0)), (1, 1), 2)
        check_scheduled(whole(op, typed(f32, 2, 6, 5, 6), typed(f32, 32, 3, 3, 3)))

    def test_batches(self):
        check_scheduled(whole(Matmul(), typed(f32, 2, 3, 9, 7), typed(f32, 2, 3, 7, 17)))

    def test_einsums(self):
        op = Einsum("bqhd,bkhd->bhqk")
        check_scheduled(whole(op, typed(f32, 2, 5, 3, 8), typed(f32, 2, 9, 3, 8)))

    @pytest.mark.parametrize("n", [1, 3])
    def test_symbols(self, n: int):
        op = Conv((1, 1), ((0, 0), (0, 0)), (1, 1))
        check_scheduled(whole(op, typed(f32, "n", 3, 5, 5), typed(f32, 16, 3, 3, 3)), n=n)

    @pytest.mark.parametrize("kinds", [(bf16, bf16, f32), (u8, i8, i32), (i8, i8, i32)])
    def test_narrow_types(self, kinds: tuple[DType, DType, DType]):
        assert "dot(" in check_scheduled(narrow_function(*kinds), COOPERLAKE)

    def test_steps_that_make_no_group_are_padded(self):
        assert "dot(" in check_scheduled(narrow_function(u8, i8, i32, steps=13), COOPERLAKE)
