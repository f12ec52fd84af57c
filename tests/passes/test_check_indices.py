"""Positions that come from inputs are tested, each once, and others are not."""

import numpy as np
import pytest

from treadle.base.errors import RuntimeFault
from treadle.ir.calls import AssertTrue
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.passes.check_indices import check_indices
from treadle.testing import assert_same_ir, ir


def messages(module: Module) -> list[tuple[str, str | None]]:
    checked = check_indices(module)
    return [
        (b.op.message, b.op.cure)
        for b in checked.graph("main").body
        if isinstance(b.op, AssertTrue)
    ]


def test_a_test_stands_before_the_operation():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32], i: Tensor[(m,), i64]) -> (Tensor[(m, 4), f32],):
        y = gather(x, i, axis=0)
        return y
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32], i: Tensor[(m,), i64]) -> (Tensor[(m, 4), f32],):
        greater_equal = greater_equal(i, literal(-n))
        less = less(i, literal(n))
        logical_and = logical_and(greater_equal, less)
        all = all(logical_and, axes=(0,))
        assert_true = assert_true(
            all,
            message="gather: a position in the input 'i' is out of range: the axis has size n",
            cure="pass positions from -n to n - 1",
        )
        y = gather(x, i, axis=0)
        return y
    """)
    assert_same_ir(check_indices(before), after)


def test_equal_positions_along_equal_axes_share_a_test_whatever_their_order():
    module = ir(
        """
    @graph.function
    def main(
        x: Tensor[(9, 4), f32], z: Tensor[(9,), f32], w: Tensor[(7,), f32], i: Tensor[(2, 3), i64]
    ) -> (
        Tensor[(2, 3, 4), f32], Tensor[(6,), f32], Tensor[(3, 2), f32], Tensor[(2, 3), f32],
    ):
        a = gather(x, i, axis=0)
        flat = reshape(i, shape=(6,))
        b = gather(z, flat, axis=0)
        turned = permute(i, axes=(1, 0))
        c = gather(z, turned, axis=0)
        d = gather(w, i, axis=0)
        return a, b, c, d
    """
    )
    assert [cure for _, cure in messages(module)] == [
        "pass positions from -9 to 8",
        "pass positions from -7 to 6",
    ]


def test_positions_that_are_computed_are_not_tested():
    module = ir("""
    @graph.function
    def main(x: Tensor[(9,), f32], i: Tensor[(3,), i64]) -> (Tensor[(3,), f32],):
        j = mul(i, i)
        y = gather(x, j, axis=0)
        return y
    """)
    assert messages(module) == []


def test_positions_without_a_sign_start_at_zero_and_conversions_are_looked_through():
    module = ir("""
    @graph.function
    def main(x: Tensor[(9,), f32], i: Tensor[(5,), u8]) -> (Tensor[(3,), f32], Tensor[(3,), f32]):
        s = slice(i, axis=0, start=1, stop=4)
        a = gather(x, s, axis=0)
        j = cast(s, dtype=i32)
        b = gather(x, j, axis=0)
        return a, b
    """)
    assert [cure for _, cure in messages(module)] == [
        "pass positions from 0 to 8",
        "pass positions from -9 to 8",
    ]


def test_tuples_of_positions_are_tested_by_column_where_axes_differ():
    module = ir(
        """
    @graph.function
    def main(
        x: Tensor[(3, 5), f32], i: Tensor[(4, 1), i64], j: Tensor[(4, 1), i64]
    ) -> (Tensor[(4,), f32],):
        tuples = concat(i, j, axis=1)
        y = gather_nd(x, tuples)
        return y
    """
    )
    assert messages(module) == [
        (
            "gather_nd: a position in the inputs 'i' and 'j' is out of range: the axis has size 3",
            "pass positions from -3 to 2",
        ),
        (
            "gather_nd: a position in the inputs 'i' and 'j' is out of range: the axis has size 5",
            "pass positions from -5 to 4",
        ),
    ]


@pytest.mark.parametrize(("position", "fits"), [(-3, True), (2, True), (-4, False), (3, False)])
def test_the_interpreter_stops_as_the_compiled_program_does(position, fits):
    module = check_indices(
        ir("""
    @graph.function
    def main(x: Tensor[(3,), f32], i: Tensor[(), i64]) -> (Tensor[(), f32],):
        y = gather(x, i, axis=0)
        return y
    """)
    )
    arrays = np.arange(3, dtype=np.float32), np.array(position)
    if fits:
        assert run(module, "main", *arrays)[0] == position % 3
    else:
        with pytest.raises(RuntimeFault, match="E0707"):
            run(module, "main", *arrays)
