"""Small hand-written programs in LLVM IR, so that the run time is tested without the compiler."""

import numpy as np
import pytest

from treadle_runtime.executable import Executable, exports_of
from treadle_runtime.loader import compile_text, load
from treadle_runtime.manifest import CallSpec, Check, Entry, TensorSpec
from treadle_runtime.threads import Pool, runtime_symbols

# out = 2 * x + y over n elements: first 2 * x into the arena, then the sum in parallel.
AXPY_TEXT = """
declare void @treadle.parallel_for(ptr, ptr, ptr, i64, i64)

define i32 @axpy.shapes(ptr %dims, ptr %symbols, ptr %out, ptr %arena) {
  %n = load i64, ptr %dims
  %m.at = getelementptr i64, ptr %dims, i64 1
  %m = load i64, ptr %m.at
  %same = icmp eq i64 %n, %m
  br i1 %same, label %good, label %bad
good:
  store i64 %n, ptr %symbols
  store i64 %n, ptr %out
  %bytes = mul i64 %n, 4
  store i64 %bytes, ptr %arena
  ret i32 0
bad:
  ret i32 1
}

define internal void @double(ptr %arena, ptr %x, i64 %n) {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %exit
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %x.at = getelementptr float, ptr %x, i64 %i
  %a.at = getelementptr float, ptr %arena, i64 %i
  %v = load float, ptr %x.at
  %w = fmul float %v, 2.0
  store float %w, ptr %a.at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

define internal void @add(ptr %context, i64 %begin, i64 %end) {
entry:
  %arena = load ptr, ptr %context
  %y.p = getelementptr ptr, ptr %context, i64 1
  %y = load ptr, ptr %y.p
  %out.p = getelementptr ptr, ptr %context, i64 2
  %out = load ptr, ptr %out.p
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %exit
loop:
  %i = phi i64 [ %begin, %entry ], [ %next, %loop ]
  %a.at = getelementptr float, ptr %arena, i64 %i
  %y.at = getelementptr float, ptr %y, i64 %i
  %o.at = getelementptr float, ptr %out, i64 %i
  %a = load float, ptr %a.at
  %b = load float, ptr %y.at
  %s = fadd float %a, %b
  store float %s, ptr %o.at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %exit
exit:
  ret void
}

define i32 @axpy.run(ptr %block) {
entry:
  %context = alloca [3 x ptr]
  %pool = load ptr, ptr %block
  %arena.p = getelementptr i64, ptr %block, i64 1
  %arena = load ptr, ptr %arena.p
  %symbols.p = getelementptr i64, ptr %block, i64 3
  %symbols = load ptr, ptr %symbols.p
  %n = load i64, ptr %symbols
  %profile.p = getelementptr i64, ptr %block, i64 4
  %profile = load ptr, ptr %profile.p
  %x.p = getelementptr i64, ptr %block, i64 5
  %x = load ptr, ptr %x.p
  %y.p = getelementptr i64, ptr %block, i64 6
  %y = load ptr, ptr %y.p
  %out.p = getelementptr i64, ptr %block, i64 7
  %out = load ptr, ptr %out.p
  call void @double(ptr %arena, ptr %x, i64 %n)
  store ptr %arena, ptr %context
  %c1 = getelementptr ptr, ptr %context, i64 1
  store ptr %y, ptr %c1
  %c2 = getelementptr ptr, ptr %context, i64 2
  store ptr %out, ptr %c2
  call void @treadle.parallel_for(ptr %pool, ptr @add, ptr %context, i64 %n, i64 4)
  %profiled = icmp ne ptr %profile, null
  br i1 %profiled, label %times, label %exit
times:
  store i64 1000, ptr %profile
  %p1 = getelementptr i64, ptr %profile, i64 1
  store i64 2000, ptr %p1
  %p2 = getelementptr i64, ptr %profile, i64 2
  store i64 3000, ptr %p2
  %p3 = getelementptr i64, ptr %profile, i64 3
  store i64 6000, ptr %p3
  br label %exit
exit:
  ret i32 0
}
"""

AXPY = Entry(
    name="axpy",
    inputs=(TensorSpec("x", "f32", ("n",)), TensorSpec("y", "f32", ("n",))),
    outputs=(TensorSpec("out", "f32", ("n",)),),
    symbols=("n",),
    checks=(Check("y.shape[0] == n", 1, 0),),
    calls=(
        CallSpec("double_kernel", "double", "n", "8*n"),
        CallSpec("add_kernel", "add", "n", "12*n"),
    ),
)


@pytest.fixture(scope="session")
def axpy_object():
    return compile_text(AXPY_TEXT)


@pytest.fixture(scope="session")
def axpy_entry():
    return AXPY


@pytest.fixture
def axpy(axpy_object):
    return Executable(AXPY, load(axpy_object, exports_of(AXPY), runtime_symbols()))


@pytest.fixture
def pool():
    with Pool(2) as pool:
        yield pool


@pytest.fixture
def axpy_pooled(axpy_object, pool):
    return Executable(AXPY, load(axpy_object, exports_of(AXPY), runtime_symbols()), pool=pool)


@pytest.fixture
def vectors():
    def make(n, seed=0):
        generator = np.random.default_rng(seed)
        return tuple(generator.standard_normal(n).astype(np.float32) for _ in range(2))

    return make
