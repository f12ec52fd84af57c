"""What a parallel loop and a call cost: the pool beside PyTorch's and Python's, hot and asleep.

Run it on an idle machine; each line is the best of several rounds.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from treadle_runtime.executable import Executable, exports_of
from treadle_runtime.loader import load_text
from treadle_runtime.manifest import Entry, TensorSpec
from treadle_runtime.threads import Pool, available_threads, runtime_symbols

EMPTY_LOOPS = """
declare void @treadle.parallel_for(ptr, ptr, ptr, i64, i64)
define internal void @nothing(ptr %context, i64 %begin, i64 %end) {
  ret void
}
define void @loops(ptr %pool, i64 %times) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void @treadle.parallel_for(ptr %pool, ptr @nothing, ptr null, i64 1024, i64 1)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""

# An entry with three inputs and one output that does nothing: what is left is the cost of a call.
EMPTY_ENTRY = """
define i32 @nothing.shapes(ptr %dims, ptr %symbols, ptr %out, ptr %arena) {
  %n = load i64, ptr %dims
  store i64 %n, ptr %symbols
  store i64 %n, ptr %out
  %o1 = getelementptr i64, ptr %out, i64 1
  store i64 64, ptr %o1
  store i64 0, ptr %arena
  ret i32 0
}
define i32 @nothing.run(ptr %block) {
  ret i32 0
}
"""

ROUNDS = 5


def best(action: Callable[[], object], times: int) -> float:
    """Microseconds of one of the ``times`` repetitions that ``action`` makes, in the best round."""
    seconds: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds) / times * 1e6


def fork_join(threads: int) -> None:
    """Print the cost of an empty parallel loop, and of the same through Python's executor."""
    code = load_text(EMPTY_LOOPS, ["loops"], runtime_symbols())
    loops = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code["loops"])
    times = 20_000
    with Pool(threads) as pool, ThreadPoolExecutor(threads) as executor:

        def asleep() -> None:
            loops(pool.address, 1)

        print(f"fork and join, {threads} threads, hot: {best_loops(loops, pool, times):8.3f} us")
        slept: list[float] = []
        for _ in range(ROUNDS):
            time.sleep(0.05)
            start = time.perf_counter()
            asleep()
            slept.append(time.perf_counter() - start)
        print(f"fork and join, {threads} threads, asleep: {min(slept) * 1e6:5.1f} us")

        def through_executor() -> None:
            for _ in range(500):
                list(executor.map(abs, range(threads)))

        print(f"Python's ThreadPoolExecutor: {best(through_executor, 500):18.1f} us")


def best_loops(loops: Callable[[int, int], None], pool: Pool, times: int) -> float:
    """Microseconds of one empty parallel loop."""
    return best(lambda: loops(pool.address, times), times)


def calls() -> None:
    """Print the cost of calling an executable that does nothing, beside an operation of PyTorch."""
    spec = TensorSpec("x", "f32", ("n", 64))
    inputs = tuple(TensorSpec(name, "f32", ("n", 64)) for name in "xyz")
    entry = Entry("nothing", inputs, (spec,), symbols=("n",))
    program = Executable(entry, load_text(EMPTY_ENTRY, exports_of(entry)))
    tensors = [torch.zeros(8, 64) for _ in range(3)]
    arrays = [np.zeros((8, 64), np.float32) for _ in range(3)]
    times = 20_000

    def repeat(call: Callable[..., object], arguments: list[object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                call(*arguments)

        return run

    print(f"a call on 3 PyTorch tensors: {best(repeat(program, [*tensors]), times):18.2f} us")
    print(f"a call on 3 NumPy arrays: {best(repeat(program, [*arrays]), times):21.2f} us")
    print(f"torch.add of 2 tensors: {best(repeat(torch.add, [*tensors[:2]]), times):23.2f} us")
    print(f"numpy.add of 2 arrays: {best(repeat(np.add, [*arrays[:2]]), times):24.2f} us")


if __name__ == "__main__":
    fork_join(max(2, available_threads()))
    calls()
