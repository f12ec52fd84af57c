"""Few and many rows have schedules of their own in one kernel, with one packed weight."""

import numpy as np
import pytest

import treadle
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import If, TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.ops import Matmul
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.prefetch import PrefetchNext
from treadle.schedule.specialize import Specialize
from treadle.schedule.trace import Schedule, apply_trace, parse_trace, trace_text
from treadle.target import Target
from treadle.testing import assert_same_ir, ir
from treadle.tune.versions import layouts_of, versioned_schedule

AVX512 = Target.parse("x86-64-v4")
ROWS = (0, 1, 2, 7, 8, 9, 16, 17, 18, 19, 31)


def product(rows: int | Var, k: int, columns: int) -> TensorFunction:
    function = Matmul().lower(tensor([rows, k], f32), tensor([k, columns], f32))
    assert function is not None
    return function


def scheduled(function: TensorFunction, *, constant: bool = True) -> Schedule:
    constants = frozenset(function.input_buffers[1:] if constant else ())
    s = versioned_schedule(function, AVX512, 1, constants)
    verify_tensor_function(s.function)
    return s


def test_few_rows_are_told_from_many():
    s = scheduled(product(Var("n"), 512, 512))
    (chosen,) = s.trace
    (choice,) = s.function.body
    assert isinstance(chosen, Specialize)
    assert isinstance(choice, If)
    assert not any(isinstance(i, PrefetchNext) for i in chosen.then)
    assert any(isinstance(i, PrefetchNext) for i in chosen.orelse)
    assert len(layouts_of(s.trace)) == 1


def test_the_trace_gives_the_function_again():
    function = product(Var("n"), 512, 512)
    s = scheduled(function)
    assert_same_ir(apply_trace(function, parse_trace(trace_text(s.trace))), s.function)


@pytest.mark.parametrize(
    ("rows", "size", "constant"),
    [(7, 512, True), (Var("n"), 64, True), (Var("n"), 512, False)],
    ids=["rows are known", "the weight is near", "the weight is packed at run time"],
)
def test_one_schedule_is_enough_where_both_would_be_the_same(rows, size, constant):
    s = scheduled(product(rows, size, size), constant=constant)
    assert not any(isinstance(i, Specialize) for i in s.trace)


@pytest.mark.parametrize("claim", ["n >= 64", "n <= 4"])
def test_what_callers_keep_decides_without_asking(claim):
    function = ir(str(product(Var("n"), 512, 512)).replace("):\n", f"):\n    assume({claim})\n", 1))
    s = scheduled(function.tensor_functions[0])
    assert not any(isinstance(i, Specialize) for i in s.trace)


@pytest.mark.parametrize("n", ROWS)
def test_both_branches_keep_their_values(n):
    function = product(Var("n"), 3, 5)
    s = Schedule(function)
    branch = scheduled(product(Var("n"), 3, 5)).trace
    s.specialize("(n + 5) // 6 < 4", branch, branch)
    rng = np.random.default_rng(n)
    x, w = (rng.integers(-3, 4, d).astype(np.float32) for d in ((n, 3), (3, 5)))
    packed = w
    for layout in layouts_of(s.trace):
        shape = next(b for b in s.function.buffers if b.name == layout.buffer).shape
        packed = layout.pack(w, tuple(int(str(d)) for d in shape))
    low = lower_loops(s.function)
    found = run_tensor(low, [x.ravel(), packed.ravel()], {"n": n}, out_shapes=[(n * 5,)])[0]
    np.testing.assert_array_equal(found.reshape(n, 5), x @ w)


MODEL = """
w = constant(Tensor[(521, 1031), f32])
u = constant(Tensor[(521, 1031), f32])
b = constant(Tensor[(1031,), f32])

@graph.function
def main(x: Tensor[(n, 521), f32], r: Tensor[(n, 1031), f32]):
    p = matmul(x, constants.w)
    q = add(p, constants.b)
    g = silu(q)
    h = matmul(x, constants.u)
    m = mul(g, h)
    y = add(m, r)
    return y
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_products_are_right_for_any_number_of_rows(threads):
    rng = np.random.default_rng(0)
    w, u = (rng.standard_normal((521, 1031), np.float32) / 32 for _ in range(2))
    b = rng.standard_normal(1031, np.float32)
    exe = treadle.compile(ir(MODEL, {"w": w, "u": u, "b": b}), threads=threads)
    for n in ROWS:
        x, r = rng.standard_normal((n, 521), np.float32), rng.standard_normal((n, 1031), np.float32)
        p = (x.astype(np.float64) @ w) + b
        wanted = p / (1 + np.exp(-p)) * (x.astype(np.float64) @ u) + r
        np.testing.assert_allclose(exe(x, r), wanted, rtol=1e-4, atol=1e-4)
