"""What a call does beside its kernels: nothing twice."""

import numpy as np
import pytest

import treadle
from treadle.base.errors import RuntimeFault
from treadle.testing import ir

TEXT = """
    @graph.function
    def main(x: Tensor[(n, m), f32], y: Tensor[(n, m), f32]):
        assume(n >= 2)
        z = add(x, y)
        s = sum(z, axes=(0,))
        return z, s
"""


@pytest.fixture
def counted():
    """An executable, and the list that grows with every time its shapes are solved."""
    exe = treadle.compile(ir(TEXT), threads=1)
    solve, times = exe._shapes, []

    def counting(*arguments):
        times.append(1)
        return solve(*arguments)

    exe._shapes = counting
    return exe, times


def check(exe, n, m):
    x, y = (np.random.default_rng(k).standard_normal((n, m)).astype(np.float32) for k in (0, 1))
    z, s = exe(x, y)
    np.testing.assert_array_equal(z, x + y)
    np.testing.assert_allclose(s, (x + y).sum(0), rtol=1e-5, atol=1e-5)


def test_shapes_are_solved_once_while_they_stay(counted):
    exe, times = counted
    for _ in range(5):
        check(exe, 4, 3)
    assert len(times) == 1


def test_other_shapes_are_solved_anew(counted):
    exe, times = counted
    for n, m in ((4, 3), (3, 4), (4, 3), (40, 300), (2, 1)):
        check(exe, n, m)
    assert len(times) == 5


def test_a_call_that_was_refused_is_refused_again_and_others_are_not(counted):
    exe, _ = counted
    for _ in range(2):
        check(exe, 4, 3)
        for _ in range(2):
            with pytest.raises(RuntimeFault, match="E0706"):
                exe(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
        with pytest.raises(RuntimeFault, match=r"E0705|E0706"):
            exe(np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32))


def test_memory_tells_of_the_last_call_also_where_nothing_was_solved(counted):
    exe, _ = counted
    check(exe, 4, 3)
    small = exe.memory().peak
    check(exe, 40, 30)
    assert exe.memory(n=4, m=3).peak == small
    assert exe.memory().peak == exe.memory(n=40, m=30).peak
    check(exe, 40, 30)
    assert exe.memory().peak == exe.memory(n=40, m=30).peak
