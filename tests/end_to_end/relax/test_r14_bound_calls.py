"""On CPUs the counterpart of a captured graph is a list of calls that is bound beforehand: what the
first call finds out of its shapes the next ones repeat, and the host needs next to nothing for each
kernel (Relax, arXiv 2311.02103, §4.5).
"""

import time
from itertools import pairwise

import numpy as np

import treadle
from treadle.testing import ir

KERNELS = 128
MICROSECONDS = 2.0


def chain(count):
    """So many tiny kernels, one after another."""
    names = ["x", *(f"v{i}" for i in range(count))]
    lines = [f"    {y} = cum_sum({x}, axis=0)\n" for x, y in pairwise(names)]
    text = f"@graph.function\ndef main(x: Tensor[(n, 4), f32]):\n{''.join(lines)}"
    exe = treadle.compile(ir(f"{text}    return {names[-1]}\n"), threads=1)
    assert len(exe.entry.calls) == count
    return exe


def native_calls(exe):
    """A list that grows by the name of each native function of a program that Python calls."""
    called = []
    for name in ("_shapes", "_run"):
        function = getattr(exe, name)

        def counting(*arguments, name=name, function=function):
            called.append(name)
            return function(*arguments)

        setattr(exe, name, counting)
    return called


def test_a_call_is_one_native_call_once_its_shapes_are_known():
    exe = chain(8)
    called = native_calls(exe)
    x = np.ones((2, 4), np.float32)
    exe(x)
    assert called == ["_shapes", "_run"]
    for _ in range(3):
        exe(x)
    assert called == ["_shapes", "_run", "_run", "_run", "_run"]


def test_each_value_of_the_symbols_has_its_own_solution():
    exe = chain(8)
    for n in (2, 5, 2, 0, 7, 2):
        x = np.ones((n, 4), np.float32)
        expected = x
        for _ in range(8):
            expected = expected.cumsum(0)
        np.testing.assert_array_equal(exe(x), expected)


def test_the_host_needs_less_than_two_microseconds_for_a_kernel():
    exe = chain(KERNELS)
    x = np.ones((2, 4), np.float32)
    exe(x)
    best = float("inf")
    for _ in range(20):
        start = time.thread_time_ns()
        for _ in range(10):
            exe(x)
        best = min(best, (time.thread_time_ns() - start) / 10)
    # The kernels' own work and the call from Python are part of it.
    assert best / KERNELS / 1e3 < MICROSECONDS
