"""What a call costs beside its kernels: per kernel, per turn of a loop, per function of a library,
and once per call from Python.

Programs of 1 to 256 tiny kernels, each a scan of eight numbers, which no two of fuse: the time of a
call over their number is above what the host needs for one, and the slope between programs says
what it needs for one more. All times are of the processor's clock for this thread, the least of
several rounds, so that a busy machine disturbs little.

    python benchmarks/host_overhead.py [--check]

With ``--check`` the exit status is 1 if the host needs more than 2 us for a kernel.
"""

import argparse
import ctypes.util
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import treadle
from treadle.driver.executable import Executable
from treadle.expr.dtype import f32
from treadle.libraries import Library, Lowering, dims, is_op, tensor
from treadle.ops import CumSum
from treadle.testing import ir

COUNTS = (1, 16, 64, 256)
LIMIT = 2.0
ROUNDS = 15
HEAD = "@graph.function\ndef main(x: Tensor[(n, 4), f32]):\n"
LOOP = """
    @graph.function
    def more(i: Tensor[(), i64], x: Tensor[(n, 4), f32], turns: Tensor[(), i64]):
        c = less(i, turns)
        return c

    @graph.function
    def turn(i: Tensor[(), i64], x: Tensor[(n, 4), f32], turns: Tensor[(), i64]):
        j = add(i, i64(1))
        y = cum_sum(x, axis=0)
        return j, y

    @graph.function
    def main(x: Tensor[(n, 4), f32], i: Tensor[(), i64], turns: Tensor[(), i64]):
        k, y = while_loop(
            i, x, turns, condition=more, body=turn, carried=2,
            out=(Tensor[(), i64], Tensor[(n, 4), f32]),
        )
        return y
"""


def microseconds(action: Callable[..., object], *arguments: object, times: int = 100) -> float:
    """Time of one call of ``action`` on this thread's clock, the least of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        for _ in range(times):
            action(*arguments)
        best = min(best, (time.thread_time_ns() - start) / times)
    return best / 1e3


def chain(count: int, threads: int = 1, libraries: tuple[Library, ...] = ()) -> Executable:
    """A program of so many kernels, one after another, for any number of rows."""
    names = ["x", *(f"v{i}" for i in range(count))]
    lines = [f"    {y} = cum_sum({x}, axis=0)\n" for x, y in pairwise(names)]
    text = f"{HEAD}{''.join(lines)}    return {names[-1]}\n"
    return treadle.compile(ir(text), threads=threads, libraries=libraries)


def copied() -> Library:
    """The C library's ``memcpy`` in the place of each kernel: what a call of a function costs."""
    n, m = dims("n m")
    x, y = tensor(f32, n, m), tensor(f32, n, m)
    prototype = "void memcpy(void *y, const void *x, size_t bytes)"
    lowering = Lowering(is_op(CumSum, x), y, prototype, (y, x, n * m * 4))
    return Library("libc", (lowering,), ctypes.util.find_library("c"))


def called_back() -> Library:
    """A Python function that does nothing in its place."""
    n, m = dims("n m")
    x, y = tensor(f32, n, m), tensor(f32, n, m)

    def nothing(x: np.ndarray, y: np.ndarray) -> None:
        """Leave the result as it is."""

    return Library("python", (Lowering(is_op(CumSum, x), y, nothing),))


def kernels(console: Console) -> float:
    """Print the time of programs of many kernels; the host's time for one kernel."""
    x = np.zeros((2, 4), np.float32)
    table = Table(box=None, pad_edge=False, title="a call, in us", title_justify="left")
    for heading in ("each step is", *(f"{n} steps" for n in COUNTS), "one more step"):
        table.add_column(heading, justify="left" if heading == "each step is" else "right")
    slopes: list[float] = []
    for name, threads, libraries in (
        ("a kernel", 1, ()),
        ("a kernel, 2 threads", 2, ()),
        ("a C function", 1, (copied(),)),
        ("a Python function", 1, (called_back(),)),
    ):
        times: list[float] = []
        for count in COUNTS:
            exe = chain(count, threads, libraries)
            assert len(exe.entry.calls) == count
            times.append(microseconds(exe, x))
        slopes.append((times[-1] - times[0]) / (COUNTS[-1] - COUNTS[0]))
        table.add_row(name, *(f"{t:.2f}" for t in times), f"{slopes[-1]:.3f}")
    loop = treadle.compile(ir(LOOP), threads=1)
    start = np.array(0)
    turns = [microseconds(loop, x, start, np.array(n)) for n in COUNTS]
    slope = (turns[-1] - turns[0]) / (COUNTS[-1] - COUNTS[0])
    table.add_row("a turn of a loop", *(f"{t:.2f}" for t in turns), f"{slope:.3f}")
    console.print(table)
    return max(slopes[:2])


def calls(console: Console) -> None:
    """Print the time of a call of one tiny kernel by the number of inputs."""
    table = Table(box=None, pad_edge=False, title="one kernel, in us", title_justify="left")
    for heading in ("inputs", "NumPy", "PyTorch", "numpy.add", "torch.add"):
        table.add_column(heading, justify="right")
    for count in (1, 2, 4, 16):
        params = ", ".join(f"x{i}: Tensor[(n, 4), f32]" for i in range(count))
        names = [f"x{i}" for i in range(count)]
        lines = ["    s0 = neg(x0)\n"]
        lines += [f"    s{i} = add(s{i - 1}, {names[i]})\n" for i in range(1, count)]
        text = f"@graph.function\ndef main({params}):\n{''.join(lines)}    return s{count - 1}\n"
        exe = treadle.compile(ir(text), threads=1)
        arrays = [np.zeros((2, 4), np.float32) for _ in range(count)]
        tensors = [torch.zeros(2, 4) for _ in range(count)]
        row = [microseconds(exe, *arrays), microseconds(exe, *tensors)]
        if count == 2:
            row.append(microseconds(np.add, *arrays))
            row.append(microseconds(torch.add, *tensors))
        table.add_row(str(count), *(f"{t:.2f}" for t in row))
    console.print(table)


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description="Measure what a call costs beside its kernels.")
    parser.add_argument("--check", action="store_true", help="fail above 2 us for a kernel")
    options = parser.parse_args()
    console = Console(width=110)
    found = kernels(console)
    console.print()
    calls(console)
    console.print(f"\nthe host's time for one more kernel: {found:.3f} us (limit {LIMIT:.0f} us)")
    return 1 if options.check and found > LIMIT else 0


if __name__ == "__main__":
    raise SystemExit(main())
