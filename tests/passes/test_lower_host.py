"""The host function: symbols solved and checked, results in place, memory shared."""

import pytest

from treadle.base.errors import LoweringError
from treadle.ir.host import ArenaSlot, HostFunction, InputSlot, KernelStep, OutputSlot
from treadle.passes.legalize import legalize
from treadle.passes.lower_host import lower_host
from treadle.testing import ir


def host_of(text: str) -> HostFunction:
    return lower_host(legalize(ir(text)))


def test_a_symbol_is_solved_from_the_first_dimension_that_is_it_and_checked_at_the_others():
    host = host_of("""
        @graph.function
        def main(x: Tensor[(n, 4), f32], y: Tensor[(n, 4), f32]) -> (Tensor[(n, 4), f32],):
            assume(n >= 2)
            z = add(x, y)
            return z
    """)
    assert [var.name for var, _ in host.symbols] == ["n"]
    assert [(c.input, c.axis) for c in host.checks if c.input is not None] == [
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert [c.text for c in host.checks if c.input is None] == ["n >= 2"]


def test_a_symbol_is_solved_from_a_linear_dimension():
    host = host_of("""
        @graph.function
        def main(x: Tensor[(n * 2 + 1,), f32], y: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
            z = neg(y)
            return z
    """)
    assert [var.name for var, _ in host.symbols] == ["n"]


def test_a_symbol_that_no_input_tells_is_refused():
    with pytest.raises(LoweringError, match="E0420"):
        host_of("""
            @graph.function
            def main(x: Tensor[(n * m,), f32]) -> (Tensor[(n * m,), f32],):
                z = neg(x)
                return z
        """)


def test_kernels_read_inputs_and_write_results_in_place():
    host = host_of("""
        @graph.function
        def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32], Tensor[(n,), f32]):
            a = neg(x)
            b = exp(a)
            c = abs(b)
            return c, a
    """)
    steps = [s for s in host.steps if isinstance(s, KernelStep)]
    assert steps[0].buffers == (InputSlot(0), OutputSlot(1))
    assert steps[1].buffers[0] == OutputSlot(1)
    assert steps[2].buffers == (steps[1].buffers[1], OutputSlot(0))


def test_values_of_a_chain_of_elements_lie_in_the_place_of_the_result():
    host = host_of("""
        @graph.function
        def main(x: Tensor[(16,), f32]) -> (Tensor[(16,), f32],):
            a = neg(x)
            b = exp(a)
            c = abs(b)
            return c
    """)
    assert {s.buffers[-1] for s in host.steps if isinstance(s, KernelStep)} == {OutputSlot(0)}
    assert str(host.arena) == "0"


def test_values_that_cannot_be_overwritten_alternate_between_two_places():
    host = host_of("""
        @graph.function
        def main(x: Tensor[(4, 4), f32]) -> (Tensor[(4, 4), f32],):
            a = permute(x, axes=(1, 0))
            b = permute(a, axes=(1, 0))
            c = permute(b, axes=(1, 0))
            d = permute(c, axes=(1, 0))
            e = permute(d, axes=(1, 0))
            return e
    """)
    places = [s.buffers[-1] for s in host.steps if isinstance(s, KernelStep)]
    assert all(isinstance(p, ArenaSlot) for p in places[:-1])
    assert len({str(p.offset) for p in places if isinstance(p, ArenaSlot)}) == 2
    assert str(host.arena) == "128"
    assert [str(x) for x in host.live] == ["128"]
