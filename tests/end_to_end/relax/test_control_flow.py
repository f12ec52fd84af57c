"""Branches and loops run inside the native host function, from each of the ways in."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.ir.host import BranchStep, CopyStep, KernelStep, LoopStep
from treadle.ir.interpret.graph import run
from treadle.testing import ir

LOOP = """
@graph.function
def more(i: Tensor[(), i64], x: Tensor[(n,), f32], w: Tensor[(n,), f32], stop: Tensor[(), i64]
         ) -> (Tensor[(), bool],):
    y = less(i, stop)
    return y

@graph.function
def step(i: Tensor[(), i64], x: Tensor[(n,), f32], w: Tensor[(n,), f32], stop: Tensor[(), i64]
         ) -> (Tensor[(), i64], Tensor[(n,), f32]):
    j = add(i, i64(1))
    a = mul(x, w)
    y = add(a, f32(1.0))
    return j, y

@graph.function
def main(x: Tensor[(n,), f32], w: Tensor[(n,), f32], stop: Tensor[(), i64]
         ) -> (Tensor[(n,), f32],):
    i, y = while_loop(i64(0), x, w, stop, condition=more, body=step, carried=2)
    return y
"""


def loops(exe):
    return [s for s in exe.build.host.steps if isinstance(s, LoopStep)]


def test_a_loop_is_native_and_stops_when_its_condition_says(both):
    x, w = np.linspace(0, 1, 5, dtype=np.float32), np.full(5, 0.5, np.float32)
    for stop in (0, 1, 7):
        (y,) = both(LOOP, x, w, np.array(stop))
        expected = x
        for _ in range(stop):
            expected = expected * w + np.float32(1)
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_values_that_a_loop_changes_element_by_element_are_changed_in_place():
    exe = treadle.compile(ir(LOOP), threads=1)
    (loop,) = loops(exe)
    assert [s for s in loop.body if isinstance(s, CopyStep)] == []
    assert any(isinstance(s, KernelStep) for s in loop.body)


SWAPPED = """
@graph.function
def more(i: Tensor[(), i64], x: Tensor[(n,), f32], y: Tensor[(n,), f32]) -> (Tensor[(), bool],):
    c = less(i, i64(5))
    return c

@graph.function
def step(i: Tensor[(), i64], x: Tensor[(n,), f32], y: Tensor[(n,), f32]
         ) -> (Tensor[(), i64], Tensor[(n,), f32], Tensor[(n,), f32]):
    j = add(i, i64(1))
    z = add(x, y)
    return j, y, z

@graph.function
def main(x: Tensor[(n,), f32], y: Tensor[(n,), f32]) -> (Tensor[(n,), f32], Tensor[(n,), f32]):
    i, a, b = while_loop(i64(0), x, y, condition=more, body=step, carried=3)
    return a, b
"""


def test_carried_values_may_change_places(both):
    a, b = both(SWAPPED, np.ones(3, np.float32), np.ones(3, np.float32))
    assert (a[0], b[0]) == (8, 13)


MIXED = """
@graph.function
def more(x: Tensor[(n, n), f32], k: Tensor[(), i64]) -> (Tensor[(), bool],):
    c = greater(k, i64(0))
    return c

@graph.function
def step(x: Tensor[(n, n), f32], k: Tensor[(), i64]) -> (Tensor[(n, n), f32], Tensor[(), i64]):
    y = matmul(x, x)
    top = max(y, axes=(0, 1))
    z = div(y, top)
    m = sub(k, i64(1))
    return z, m

@graph.function
def main(x: Tensor[(n, n), f32]) -> (Tensor[(n, n), f32],):
    y, k = while_loop(x, i64(3), condition=more, body=step, carried=2)
    return y
"""


def test_a_value_that_is_read_whole_is_not_overwritten_while_it_is_read(both):
    rng = np.random.default_rng(0)
    both(MIXED, rng.uniform(0, 1, (9, 9)).astype(np.float32))


LAWS = """
@graph.function
def more(i: Tensor[(), i64], a: Tensor[(n,), f32], b: Tensor[(n,), f32], c: Tensor[(n,), f32]
         ) -> (Tensor[(), bool],):
    y = less(i, i64(3))
    return y

@graph.function
def step(i: Tensor[(), i64], a: Tensor[(n,), f32], b: Tensor[(n,), f32], c: Tensor[(n,), f32]):
    j = add(i, i64(1))
{lines}
    return j, {next}

@graph.function
def main(a: Tensor[(n,), f32], b: Tensor[(n,), f32], c: Tensor[(n,), f32]):
    i, x, y, z = while_loop(i64(0), a, b, c, condition=more, body=step, carried=4)
    return x, y, z
"""
UPDATES = ("neg({0})", "sub({0}, {1})", "flip({0}, axes=(0,))", "cum_sum({0}, axis=0)")


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_carried_values_are_those_of_the_interpreter_whatever_shares_memory(data):
    names, lines = ["a", "b", "c"], []
    for k in range(data.draw(st.integers(1, 5))):
        operands = [data.draw(st.sampled_from(names)) for _ in range(2)]
        lines.append(f"    v{k} = {data.draw(st.sampled_from(UPDATES)).format(*operands)}")
        names.append(f"v{k}")
    after = ", ".join(data.draw(st.sampled_from(names)) for _ in range(3))
    module = ir(LAWS.format(lines="\n".join(lines), next=after))
    arrays = [np.arange(k, k + 4, dtype=np.float32) for k in range(3)]
    found = treadle.compile(module, threads=1)(*arrays)
    for x, expected in zip(found, run(module, "main", *arrays), strict=True):
        np.testing.assert_allclose(x, expected, rtol=1e-5)


class Branches(torch.nn.Module):
    """Halves large values, doubles small ones."""

    def forward(self, x):
        return torch.cond(x.sum() > 4, lambda v: v / 2, lambda v: v * 2, (x,))


class Newton(torch.nn.Module):
    """Square roots by iteration until they are good."""

    def forward(self, x):
        def worse(i, y):
            return (i < 30) & ((y * y - x).abs().max() > 1e-3)

        def better(i, y):
            return i + 1, (y + x / y) / 2

        return torch.while_loop(worse, better, (torch.tensor(0), torch.ones_like(x)))[1]


@pytest.mark.parametrize("values", [(1.0, 2.0, 3.0), (0.5, 0.25, 0.125)])
def test_a_branch_of_pytorch_is_native(values):
    x = torch.tensor(values)
    exe = treadle.compile(
        Branches(), (torch.ones(3),), dynamic_shapes=({0: torch.export.Dim("n")},), threads=1
    )
    assert any(isinstance(s, BranchStep) for s in exe.build.host.steps)
    torch.testing.assert_close(exe(x), Branches()(x))
    longer = torch.cat([x, x])
    torch.testing.assert_close(exe(longer), Branches()(longer))


def test_a_loop_of_pytorch_is_native():
    x = torch.tensor([2.0, 3.0, 10.0])
    exe = treadle.compile(Newton(), (torch.ones(3),), threads=1)
    assert len(loops(exe)) == 1
    torch.testing.assert_close(exe(x), x.sqrt(), rtol=1e-3, atol=1e-3)


NESTED = """
@graph.function
def inner_more(k: Tensor[(), i64], x: Tensor[(n,), f32]) -> (Tensor[(), bool],):
    y = less(k, i64(2))
    return y

@graph.function
def inner_step(k: Tensor[(), i64], x: Tensor[(n,), f32]) -> (Tensor[(), i64], Tensor[(n,), f32]):
    j = add(k, i64(1))
    y = add(x, x)
    return j, y

@graph.function
def more(i: Tensor[(), i64], x: Tensor[(n,), f32]) -> (Tensor[(), bool],):
    y = less(i, i64(3))
    return y

@graph.function
def step(i: Tensor[(), i64], x: Tensor[(n,), f32]) -> (Tensor[(), i64], Tensor[(n,), f32]):
    j = add(i, i64(1))
    k, y = while_loop(i64(0), x, condition=inner_more, body=inner_step, carried=2)
    z = add(y, f32(1.0))
    return j, z

@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    i, y = while_loop(i64(0), x, condition=more, body=step, carried=2)
    return y
"""


def test_a_loop_in_a_loop(both):
    (y,) = both(NESTED, np.ones(3, np.float32))
    np.testing.assert_array_equal(y, np.full(3, 4 * (4 * (4 + 1) + 1) + 1, np.float32))


def test_a_branch_that_returns_what_it_is_given_copies_it(both):
    text = """
@graph.function
def kept(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    z = match_cast(x, type=Tensor[(n,), f32])
    return z

@graph.function
def turned(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    z = neg(x)
    return z

@graph.function
def main(c: Tensor[(), bool], x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
    y = cond(c, x, then=kept, orelse=turned)
    return y
"""
    x = np.arange(3, dtype=np.float32)
    (y,) = both(text, np.array(True), x)
    np.testing.assert_array_equal(y, x)
    assert not np.shares_memory(x, y)
