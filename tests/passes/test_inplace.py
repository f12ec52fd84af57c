"""A result takes the place of an operand only where nothing that is still to be read is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.codegen.llvm.kernel import kernel_text
from treadle.driver.build import aliased_buffers
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Var
from treadle.ir.interpret.loops import Executor
from treadle.ir.interpret.state import State
from treadle.ir.tensor import TensorFunction
from treadle.passes.inplace import aliased, may_overwrite
from treadle.passes.legalize import legalize
from treadle.passes.lower_host import lower_host
from treadle.passes.lower_loops import lower_loops
from treadle.target import Target
from treadle.testing import compiled_here, ir, random_inputs, tensor_functions
from treadle.tune.default import default_schedule

NATIVE = Target.native()

LEGAL = {
    "element by element, whatever the loops are": """
        for p in parallel(12):
            for j in vectorized(16):
                with block("Y"):
                    a = spatial(12, p)
                    b = spatial(14, j)
                    where(j < 14)
                    Y[a, b] = X[a, b] * f32(2.0)
    """,
    "loops that stand for several": """
        for p in parallel(168):
            with block("Y"):
                a = spatial(12, p // 14)
                b = spatial(14, p % 14)
                Y[a, b] = X[a, b] + f32(1.0)
    """,
    "a row is read before any of it is written": """
        T = alloc((12, 14), f32)
        for i in range(3):
            for k in range(4):
                for j in range(14):
                    with block("T"):
                        a = spatial(12, i * 4 + k)
                        b = spatial(14, j)
                        T[a, 13 - b] = X[a, b]
            for k2 in range(4):
                for j2 in range(14):
                    with block("Y"):
                        a2 = spatial(12, i * 4 + k2)
                        b2 = spatial(14, j2)
                        Y[a2, b2] = T[a2, b2]
    """,
}
ILLEGAL = {
    "a neighbour is read": """
        for i in range(12):
            for j in range(14):
                with block("Y"):
                    a = spatial(12, i)
                    b = spatial(14, j)
                    Y[a, b] = X[a, 13 - b]
    """,
    "rows overlap": """
        T = alloc((12, 14), f32)
        for i in range(3):
            for k in range(5):
                for j in range(14):
                    with block("T"):
                        a = spatial(12, i * 4 + k)
                        b = spatial(14, j)
                        where(i * 4 + k < 12)
                        T[a, b] = X[a, b]
            for k2 in range(4):
                for j2 in range(14):
                    with block("Y"):
                        a2 = spatial(12, i * 4 + k2)
                        b2 = spatial(14, j2)
                        Y[a2, b2] = T[a2, b2]
    """,
    "an element is written twice": """
        for r in range(2):
            for i in range(12):
                for j in range(14):
                    with block("Y"):
                        a = spatial(12, i)
                        b = spatial(14, j)
                        Y[a, b] = X[a, b] + f32(1.0)
    """,
    "the operand is needed again": """
        for i in range(12):
            for j in range(14):
                with block("Y"):
                    a = spatial(12, i)
                    b = spatial(14, j)
                    Y[a, b] = f32(0.0)
        for i2 in range(12):
            for j2 in range(14):
                with block("Z"):
                    a2 = spatial(12, i2)
                    b2 = spatial(14, j2)
                    Y[a2, b2] = X[a2, b2] + Y[a2, b2]
    """,
}


def program(body: str) -> TensorFunction:
    head = "@tensor.function\ndef f(X: Buffer[(12, 14), f32], Y: Output[(12, 14), f32]):"
    found = ir(head + "\n" + body).functions["f"]
    assert isinstance(found, TensorFunction)
    return found


@pytest.mark.parametrize("why", LEGAL)
def test_what_is_read_before_it_is_overwritten_may_be(why):
    assert may_overwrite(program(LEGAL[why]), 0, 0)


@pytest.mark.parametrize("why", ILLEGAL)
def test_what_is_read_after_it_is_overwritten_may_not_be(why):
    assert not may_overwrite(program(ILLEGAL[why]), 0, 0)


def run(function: TensorFunction, arrays: list[np.ndarray], symbols: dict[Var, int]) -> None:
    state = State(function.name)
    state.variables |= symbols
    state.buffers.update(zip(function.buffers, arrays, strict=True))
    with np.errstate(all="ignore"):
        Executor(vectorize=False).run(function.body, state)


@settings(deadline=None)
@given(tensor_functions(), st.booleans(), st.integers(0, 99))
def test_a_result_in_the_place_of_its_operand_is_the_same(function, scheduled, seed):
    if scheduled:
        function = default_schedule(function, NATIVE, 1, frozenset()).function
    if not may_overwrite(function, 0, 0):
        return
    sizes = {Var("n"): 5, Var("m"): 4}
    inputs = list(random_inputs(function, {"n": 5, "m": 4}, seed))
    shape = tuple(int(evaluate(d, sizes)) for d in function.output_buffers[0].shape)
    apart, together = np.zeros(shape, inputs[0].dtype), inputs[0].reshape(shape)
    run(function, [*(x.copy() for x in inputs), apart], sizes)
    run(function, [*inputs, together], sizes)
    np.testing.assert_array_equal(together, apart)


CHAIN = """
    @graph.function
    def main(x: Tensor[(n, 24), f32]) -> (Tensor[(n, 24), f32],):
        a = neg(x)
        b = exp(a)
        c = permute(b, axes=(1, 0))
        d = abs(c)
        e = permute(d, axes=(1, 0))
        f = add(e, a)
        return f
"""


def test_what_is_needed_later_is_kept_and_what_dies_is_overwritten():
    module = legalize(ir(CHAIN))
    host = lower_host(module)
    shared = aliased_buffers(host, module)
    assert {name for name, positions in shared.items() if positions} == {"abs", "add"}


def test_kernels_in_place_compute_the_same():
    x = np.random.default_rng(1).standard_normal((7, 24)).astype(np.float32)
    for threads in (1, 2):
        found = compiled_here(ir(CHAIN), threads=threads)(x)
        np.testing.assert_allclose(found, np.exp(-x) - x, rtol=1e-5)


def test_only_buffers_that_share_memory_are_not_told_apart():
    function = lower_loops(program(LEGAL["loops that stand for several"]))
    apart = "\n".join(kernel_text(function, NATIVE).definitions)
    shared = "\n".join(kernel_text(function, NATIVE, aliased=frozenset((0, 1))).definitions)
    assert apart.count("noalias") == 4  # of the kernel and of its loop
    assert shared.count("noalias") == 0


def test_positions_that_share_are_those_of_operands_and_results():
    assert aliased(("a", "b", "a"), 2) == {0, 2}
    assert aliased(("a", "a", "b"), 2) == frozenset()


def test_an_executable_tells_what_lives_at_once_beside_its_arena():
    exe = compiled_here(
        ir("""
        @graph.function
        def main(x: Tensor[(n, 24), f32]) -> (Tensor[(n, 24), f32],):
            a = softmax(x, axis=0)
            b = softmax(a, axis=1)
            t = permute(b, axes=(1, 0))
            c = matmul(t, a)
            d = matmul(b, c)
            return d
    """)
    )
    use = exe.memory(n=7)
    assert 2 * 7 * 24 * 4 <= use.live <= use.arena < use.live + 4 * 64
    assert "of what lives at once" in str(use)
