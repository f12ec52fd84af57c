"""vectorize_statements, unroll_statements, prefetch_statements: loops inside of a block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import TensorFunction
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.statements import (
    PrefetchStatements,
    UnrollStatements,
    VectorizeStatements,
)
from treadle.schedule.trace import apply_trace, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

PICK = """
    @tensor.function
    def pick(X: Buffer[(p, 4, 16), f32], T: Buffer[(m,), i64], W: Buffer[(m, 4), f32],
             Y: Output[(16,), f32], S: Output[(2,), f32]):
        for i in range(1):
            with block("pick"):
                vi = spatial(1, i)
                A = alloc((16,), f32, scope="stack")
                for a in range(16):
                    A[a] = f32(0.0)
                for k in range(m):
                    row = let(min(max(T[k], 0), p - 1))
                    for r in range(4):
                        for c in range(16):
                            x = let(X[row, r, c])
                            A[c] = A[c] + W[k, r] * x
                S[0] = f32(0.0)
                S[1] = f32(-9.0)
                for s in range(16):
                    S[0] = S[0] + A[s]
                for h in range(16):
                    S[1] = max(S[1], A[h])
                for y in range(16):
                    if y < m:
                        Y[y] = A[y]
                    else:
                        Y[y] = A[y] * f32(2.0)
"""


def function_of(text: str) -> TensorFunction:
    return ir(text).tensor_functions[0]


def operands(pages: int, rows: int) -> list[np.ndarray]:
    rng = np.random.default_rng(pages)
    x = rng.integers(-3, 4, (pages, 4, 16)).astype(np.float32)
    return [x, rng.integers(0, pages, rows), rng.integers(-2, 3, (rows, 4)).astype(np.float32)]


WHOLE = (
    VectorizeStatements("a"),
    VectorizeStatements("c"),
    UnrollStatements("r"),
    VectorizeStatements("s", reassociate=True),
    VectorizeStatements("h"),
    VectorizeStatements("y"),
    PrefetchStatements("X", "r", "k"),
)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (2, 0)])
def test_results_stay_the_same(shape):
    before, inputs = function_of(PICK), operands(*shape)
    after = apply_trace(before, WHOLE)
    verify_tensor_function(after)
    low = lower_loops(after)
    sizes, shapes = {"p": shape[0], "m": shape[1]}, [(16,), (2,)]
    wanted = run_tensor(before, inputs, sizes)
    for found in (
        run_tensor(after, inputs, sizes),
        run_tensor(low, inputs, sizes, out_shapes=shapes),
    ):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def test_traces_print_and_read_back():
    assert parse_trace(trace_text(WHOLE)) == WHOLE


def test_loops_are_marked():
    after = apply_trace(function_of(PICK), WHOLE[:3])
    wanted = PICK.replace("a in range", "a in vectorized").replace("c in range", "c in vectorized")
    assert_same_ir(after, function_of(wanted.replace("r in range", "r in unrolled")))


def test_the_next_rows_are_asked_for_where_a_table_names_them():
    after = str(PrefetchStatements("X", "c", "k").apply(function_of(PICK)))
    lines = [line.strip() for line in after.splitlines()]
    at = lines.index("next_c_0 = let(min(max(T[min(k + 1, m - 1)], 0), p - 1))")
    assert lines[at + 1 : at + 3] == ["for c in range(16):", "prefetch_far(X[next_c_0, r, c])"]


def test_each_line_of_what_is_read_at_a_step_is_asked_for():
    steps = (VectorizeStatements("c"), UnrollStatements("r"))
    wide = PICK.replace("16", "32").replace(
        "for r", "for q in range(2):\n                      for r"
    )
    after = str(apply_trace(function_of(wide), (*steps, PrefetchStatements("X", "q", "k"))))
    assert after.count("prefetch_far(X[next_q_0, ") == 8


SHIFT = PICK.replace("A[a] = f32(0.0)", "A[a] = A[(a + 1) % 16]")
SAME = PICK.replace("A[a] = f32(0.0)", "A[a // 2] = f32(0.0)")
WAITS = PICK.replace("A[a] = f32(0.0)", "A[a] = f32(0.0)\n                    A[0] = A[0] + A[a]")
RAGGED = PICK.replace(
    "A[a] = f32(0.0)",
    "for b in range(a):\n                        A[a] = A[a] + f32(1.0)",
)
OWN = PICK.replace("A[a] = f32(0.0)", "B = alloc((1,), f32)\n                    A[a] = f32(0.0)")
FOUND = PICK.replace("X[row, r, c]", "X[row, r, T[c]]")


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (VectorizeStatements("z"), PICK, "E0301"),
        (VectorizeStatements("i"), PICK, "E0301"),
        (VectorizeStatements("k"), PICK, "E0305"),
        (UnrollStatements("k"), PICK, "E0305"),
        (VectorizeStatements("a"), RAGGED, "E0305"),
        (VectorizeStatements("a"), OWN, "E0309"),
        (VectorizeStatements("a"), SHIFT, "E0311"),
        (VectorizeStatements("a"), SAME, "E0311"),
        (VectorizeStatements("a"), WAITS, "E0311"),
        (VectorizeStatements("r"), PICK, "E0311"),
        (VectorizeStatements("s"), PICK, "E0311"),
        (PrefetchStatements("X", "a", "k"), PICK, "E0324"),
        (PrefetchStatements("X", "c", "k"), FOUND, "E0324"),
        (PrefetchStatements("A", "s", "i"), PICK, "E0322"),
        (PrefetchStatements("X", "c", "y"), PICK, "E0301"),
    ],
)
def test_what_would_change_results_is_refused(instruction, text, code):
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function_of(text))
    assert caught.value.code == code


def test_lanes_do_not_nest():
    once = VectorizeStatements("c").apply(function_of(PICK))
    with pytest.raises(ScheduleError) as caught:
        VectorizeStatements("r", reassociate=True).apply(once)
    assert caught.value.code == "E0309"
    with pytest.raises(ScheduleError) as caught:
        VectorizeStatements("c").apply(once)
    assert caught.value.code == "E0302"


INDICES = ("{0}", "({0} + 1) % 4", "{0} // 2", "{0} + {1}", "3 - {0}", "0", "({0} * 2 + {1}) % 8")
FORMS = ("{1}", "{0} + {1}", "max({0}, {1})", "{1} * f32(2.0)", "{0}")


@st.composite
def statements(draw: st.DrawFn, scope: str) -> list[str]:
    """Lines that store to A and B, in loops over ``u``, ``v`` and ``w``; those in ``scope`` are
    around them.
    """

    def index() -> str:
        pair = [draw(st.sampled_from(scope)) for _ in range(2)]
        return draw(st.sampled_from(INDICES)).format(*pair)

    found: list[list[str]] = []
    for _ in range(draw(st.integers(1, 2))):
        target, other = (f"{draw(st.sampled_from(b))}[{index()}]" for b in ("AB", "ABX"))
        line = f"{target} = {draw(st.sampled_from(FORMS)).format(target, other)}"
        guarded = draw(st.integers(0, 4)) == 0
        found.append([f"if {index()} < 2:", f"    {line}"] if guarded else [line])
    if len(scope) < 3 and draw(st.booleans()):
        name = "uvw"[len(scope)]
        inner = draw(statements(scope + name))
        nest = [f"for {name} in range({6 - 2 * len(scope)}):", *("    " + x for x in inner)]
        found.insert(draw(st.integers(0, len(found))), nest)
    return [line for lines in found for line in lines]


def program(lines: list[str]) -> str:
    """A block that fills A and B, and runs lines for ``u``."""
    body = "\n".join(" " * 24 + x for x in lines)
    return f"""
    @tensor.function
    def f(X: Buffer[(16,), f32], A: Output[(16,), f32], B: Output[(16,), f32]):
        for i in range(1):
            with block("all"):
                vi = spatial(1, i)
                for s in range(16):
                    A[s] = X[s]
                    B[s] = X[15 - s]
                for u in range(4):
{body}
"""


@settings(max_examples=150, deadline=None)
@given(lines=statements("u"))
def test_lanes_that_are_accepted_keep_results(lines):
    before = function_of(program(lines))
    x = np.arange(-7, 9).astype(np.float32)
    wanted = run_tensor(before, [x])
    for loop in "uvw":
        try:
            after = VectorizeStatements(loop, reassociate=True).apply(before)
        except ScheduleError:
            continue
        for a, b in zip(run_tensor(lower_loops(after), [x]), wanted, strict=True):
            np.testing.assert_array_equal(a, b)
