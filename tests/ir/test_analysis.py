"""What is computed from statements: symbols, accesses, places, names and levels."""

import pytest
from hypothesis import given, settings

from treadle.base.errors import InternalError
from treadle.expr.bounds import prove
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.analysis import (
    accesses,
    allocated,
    blocks,
    buffers_read,
    buffers_written,
    enclosing,
    enclosing_loops,
    facts_of,
    find_block,
    find_loop,
    free_variables,
    fresh_name,
    names,
    paths,
    shape_symbols,
    statements,
    symbols,
)
from treadle.ir.level import Level, level_of
from treadle.ir.printer import annotated_text, stmt_text
from treadle.ir.tensor import Store
from treadle.testing import assert_same_ir, ir, tensor_functions

F = ir("""
    @tensor.function
    def f(X: Buffer[(2 * m, n), f32], k: i64, Y: Output[(n,), f32]):
        assume(n >= k)
        T = alloc((n,), f32)
        for i in range(n):
            for j in range(2 * m):
                with block("T"):
                    v = spatial(n, i)
                    r = reduction(2 * m, j)
                    where(i < k)
                    with init():
                        T[v] = 0.0
                    T[v] += load(X[r, v], mask=r < 4)
        for p in range(n):
            x = let(T[p])
            if p > 2:
                Y[p] = x
            else:
                Y[p] = T[0]
""").tensor("f")
N, M, K = Var("n"), Var("m"), Var("k")


def test_symbols_come_in_order_of_appearance_and_scalars_last():
    assert shape_symbols(F) == (M, N)
    assert symbols(F) == (M, N, K)


def test_facts_know_that_no_dimension_is_negative_and_what_is_assumed():
    facts = facts_of(F)
    assert prove(N >= 0, facts)
    assert prove(M >= 0, facts)
    assert prove(N >= K, facts)
    assert not prove(N >= 1, facts)


def test_accesses_know_what_stands_around_them():
    found = accesses(F.body)
    assert [(a.kind, a.buffer.name) for a in found] == [
        ("store", "T"),
        ("load", "T"),
        ("load", "X"),
        ("store", "T"),
        ("load", "T"),
        ("store", "Y"),
        ("load", "T"),
        ("store", "Y"),
    ]
    init, _, masked, _, _, then, _, orelse = found
    assert init.in_init
    assert not masked.in_init
    assert [loop.var.name for loop in masked.loops] == ["i", "j"]
    assert masked.conditions == (Var("i") < K,)
    assert masked.mask is (Var("r") < 4)
    assert then.conditions == (Var("p") > 2,)
    assert orelse.conditions == (~(Var("p") > 2),)
    assert [let.var.name for let in orelse.lets] == ["x"]
    assert [b.name for b in buffers_read(F.body)] == ["T", "X"]
    assert [b.name for b in buffers_written(F.body)] == ["T", "Y"]
    assert [b.name for b in allocated(F.body)] == ["T"]


def test_loops_and_blocks_are_found_by_name():
    block = find_block(F, "T")
    assert block is not None
    assert blocks(F) == (block,)
    assert [loop.var.name for loop in enclosing_loops(F, block)] == ["i", "j"]
    assert find_loop(F, "j") is enclosing_loops(F, block)[1]
    assert find_loop(F, "q") is None
    assert find_block(F, "Y") is None
    with pytest.raises(InternalError):
        enclosing(F, Store(F.output_buffers[0], (N,), Var("z", f32)))


def test_names_and_free_variables():
    assert names(F) == set("XYTmnkijvrpx")
    assert set(free_variables(F.body)) == {M, N, K}
    assert fresh_name("i", names(F)) == "i_1"
    assert fresh_name("q", names(F)) == "q"


@given(tensor_functions())
@settings(deadline=None, max_examples=30)
def test_every_statement_has_one_path(function):
    every = list(statements(function.body))
    assert [stmt for stmt, _ in paths(function.body)] == every
    assert all(enclosing(function, stmt) == above for stmt, above in paths(function.body))


def test_levels_are_computed():
    module = ir("""
        @tensor.function
        def loops(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
            for i in range(n):
                with block("Y"):
                    v = spatial(n, i)
                    Y[v] = X[v]

        @tensor.function
        def unrolled_loop(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
            for i in unrolled(4):
                Y[i] = X[i]

        @tensor.function
        def device(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
            for i in parallel(n):
                Y[i] = X[i]

        @graph.function
        def main(x: Tensor[(n,), f32]):
            y = call_tensor(device, x, out=(Tensor[(n,), f32],))
            return y

        @graph.function
        def ops(x: Tensor[(n,), f32]):
            y = relu(x)
            return y
    """)
    found = {name: level_of(f) for name, f in module.functions.items()}
    assert found == {
        "loops": Level.LOOP,
        "unrolled_loop": Level.LOOP,
        "device": Level.DEVICE,
        "main": Level.GRAPH,
        "ops": Level.GRAPH,
    }
    only = module.with_functions([module.functions["device"], module.functions["main"]])
    assert level_of(only) == Level.DEVICE
    mixed = module.with_functions([*only.functions.values(), module.functions["loops"]])
    assert level_of(mixed) == Level.LOOP
    assert level_of(module) == Level.GRAPH


def test_an_excerpt_underlines_the_statement_and_leaves_out_what_is_far():
    block = find_block(F, "T")
    assert block is not None
    lines = annotated_text(F, block.body[0])
    at = next(i for i, line in enumerate(lines) if "^" in line)
    assert lines[at - 1].strip() == stmt_text(block.body[0])
    assert lines[at] == " " * 16 + "^" * len(stmt_text(block.body[0]))
    assert lines[1].startswith("def f(")
    assert "        for j in range(2 * m):" in lines
    assert "                Y[p] = T[0]" not in lines


def test_an_excerpt_of_an_expression_shows_its_first_use():
    lines = annotated_text(F, Var("p") > 2)
    at = next(i for i, line in enumerate(lines) if "^" in line)
    assert lines[at - 1].strip() == "if p > 2:"
    assert lines[at] == " " * 11 + "^" * len("p > 2")


def test_a_difference_of_programs_is_shown():
    other = ir("@graph.function\ndef main(x: Tensor[(n,), f32]):\n    y = relu(x)\n    return y\n")
    third = ir("@graph.function\ndef main(x: Tensor[(n,), f32]):\n    y = abs(x)\n    return y\n")
    assert_same_ir(other, other)
    with pytest.raises(AssertionError) as caught:
        assert_same_ir(other, third)
    assert "-    y = abs(x)" in str(caught.value)
    assert "+    y = relu(x)" in str(caught.value)
