"""Rows: sums that are made in the sweep that computes their terms."""

import numpy as np
import pytest

from treadle.driver import compile as compile_module
from treadle.expr.dtype import boolean, f32
from treadle.expr.scalar import Var
from treadle.ir.analysis import enclosing_loops, find_block
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run_tensor
from treadle.ir.module import Module
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops import All, Einsum, Softmax
from treadle.target import Target
from treadle.tune.default import default_schedule

TARGET = Target.parse("x86-64-v4")


def scheduled(
    columns: int | Var, *, strict: bool = False, blind_rows: bool = False
) -> tuple[Softmax, TensorFunction]:
    op = Softmax(blind_rows=blind_rows)
    function = op.lower(tensor([5, columns], f32))
    assert function is not None
    found = default_schedule(function, TARGET, 1, frozenset(), strict=strict).function
    verify_tensor_function(found)
    return op, found


def share_a_sweep(function: TensorFunction) -> bool:
    """Whether the exponentials and their sum stand in one loop below that over rows."""
    powers = find_block(function, "powers")
    sums = find_block(function, "total_rf") or find_block(function, "total")
    assert powers is not None
    assert sums is not None
    loops = [enclosing_loops(function, b) for b in (powers, sums)]
    return loops[0][:2] == loops[1][:2]


@pytest.mark.parametrize("blind_rows", [False, True])
def test_softmax_sums_its_exponentials_while_it_computes_them(blind_rows: bool):
    op, function = scheduled(96, blind_rows=blind_rows)
    assert share_a_sweep(function)
    x = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    (y,) = run_tensor(function, [x])
    np.testing.assert_allclose(y, op.reference(x), rtol=1e-5)


@pytest.mark.parametrize("columns", [90, Var("n")])
def test_rows_that_vectors_do_not_fill_are_summed_afterwards(columns: int | Var):
    _, function = scheduled(columns)
    assert not share_a_sweep(function)


def test_strict_sums_keep_their_order():
    _, function = scheduled(96, strict=True)
    assert find_block(function, "total_rf") is None
    assert not share_a_sweep(function)


def norms(rows: int, columns: int) -> tuple[Einsum, TensorFunction]:
    op = Einsum("ij,ij->i")
    function = op.lower(*(tensor([rows, columns], f32),) * 2)
    assert function is not None
    return op, default_schedule(function, TARGET, 2, frozenset()).function


@pytest.mark.parametrize(("rows", "columns"), [(1, 1 << 17), (1, (1 << 17) + 19)])
def test_threads_share_a_long_sum_to_one_element(rows: int, columns: int):
    op, function = norms(rows, columns)
    verify_tensor_function(function)
    assert "parallel(16)" in str(function)
    x = np.random.default_rng(1).standard_normal((rows, columns)).astype(np.float32)
    b = GraphBuilder("main")
    y = op(b.input("x", tensor(x.shape, f32)), b.input("y", tensor(x.shape, f32)))
    module = Module({"main": b.finish(y)})
    found = [compile_module(module, threads=n)(x, x) for n in (1, 2)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], op.reference(x, x), rtol=1e-5)


def test_a_short_sum_is_not_divided():
    assert "parallel(16)" not in str(norms(1, 1000)[1])


@pytest.mark.parametrize("shape", [(3, 40), (Var("n"), Var("m"))])
def test_truths_are_joined_lane_by_lane(shape: tuple[int | Var, ...]):
    b = GraphBuilder("main")
    y = All((0, 1))(b.input("x", tensor(shape, boolean)))
    exe = compile_module(Module({"main": b.finish(y)}, {}))
    x = np.ones((3, 40), np.bool_)
    assert exe(x).all()
    for place in ((0, 0), (1, 17), (2, 39)):
        x[place] = False
        assert not exe(x)
        x[place] = True
