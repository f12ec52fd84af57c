"""Parts of a graph become calls of a library: which, by what right, and what stays."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.expr.dtype import f32
from treadle.ir.interpret import run
from treadle.ir.verify import verify
from treadle.libraries import (
    GENERATED,
    Field,
    Library,
    Lowering,
    RecordedTimes,
    dims,
    is_op,
    leading,
    tensor,
    wildcard,
)
from treadle.ops import Add, LeakyRelu, Matmul, Mul, Relu, Sub, Sum
from treadle.passes.lower_libraries import lower_libraries
from treadle.testing import assert_close, assert_same_ir, ir, modules, random_inputs

M, N, K = dims("m n k")
A, B, C = tensor(f32, M, K), tensor(f32, K, N), tensor(f32, M, N)
BIAS = tensor(f32, N)
SIZES = ", int64_t m, int64_t n, int64_t k)"


def product(name="gemm", **options):
    prototype = f"void {name}(const float *a, const float *b, float *c{SIZES}"
    return Lowering(is_op(Matmul, A, B), C, prototype, (A, B, C, M, N, K), **options)


def linear(**options):
    pattern = is_op(Relu, is_op(Add, is_op(Matmul, A, B), BIAS))
    prototype = f"int linear_relu(const float *a, const float *b, const float *v, float *c{SIZES}"
    return Lowering(pattern, C, prototype, (A, B, BIAS, C, M, N, K), **options)


LAYER = """
    @graph.function
    def main(x: Tensor[(b, 64), f32], w: Tensor[(64, 32), f32], v: Tensor[(32,), f32]):
        y = matmul(x, w)
        z = add(y, v)
        r = relu(z)
        s = neg(r)
        return s
"""
WHOLE = """
    @graph.function
    def main(x: Tensor[(b, 64), f32], w: Tensor[(64, 32), f32], v: Tensor[(32,), f32]):
        r = call_library(mine.linear_relu, x, w, v, out=(Tensor[(b, 32), f32],))
        s = neg(r)
        return s
"""
PART = """
    @graph.function
    def main(x: Tensor[(b, 64), f32], w: Tensor[(64, 32), f32], v: Tensor[(32,), f32]):
        y = call_library(mine.gemm, x, w, out=(Tensor[(b, 32), f32],))
        z = add(y, v)
        r = relu(z)
        s = neg(r)
        return s
"""


def lowered(text, *lowerings, **options):
    """The program with a library of these functions, and the choices that were made."""
    choices = []
    library = Library("mine", lowerings)
    module = lower_libraries(ir(text), libraries=[library], report=choices.append, **options)
    return module, choices


def test_a_chain_of_operations_becomes_one_call():
    module, (choice,) = lowered(LAYER, linear())
    assert_same_ir(module, ir(WHOLE))
    assert (choice.name, choice.chosen) == ("r", "mine.linear_relu")
    assert choice.operations == ("matmul", "add", "relu")


def test_a_chain_goes_before_the_operations_in_it():
    module, choices = lowered(LAYER, product(priority=5), linear(priority=1))
    assert_same_ir(module, ir(WHOLE))
    assert [c.chosen for c in choices] == ["mine.linear_relu"]


def test_where_the_chain_is_not_wanted_its_operations_are_tried():
    module, choices = lowered(LAYER, product(), linear(priority=0))
    assert_same_ir(module, ir(PART))
    assert [(c.name, c.chosen) for c in choices] == [("y", "mine.gemm"), ("r", GENERATED)]


def test_without_a_match_nothing_changes():
    module = ir(LAYER)
    library = Library("mine", (product(),))
    other = ir(str(module).replace("f32", "f64"))
    assert lower_libraries(other, libraries=[library]) is other
    assert lower_libraries(module) is module


def test_a_value_that_is_needed_elsewhere_keeps_its_operation():
    text = LAYER.replace("s = neg(r)", "s = sub(r, z)")
    module, choices = lowered(text, linear())
    assert_same_ir(module, ir(text))
    assert choices == []


def test_each_function_of_the_module_is_looked_at():
    text = """
        @graph.function
        def body(x: Tensor[(n, 8), f32], w: Tensor[(8, 8), f32]):
            y = matmul(x, w)
            return y

        @graph.function
        def other(x: Tensor[(n, 8), f32], w: Tensor[(8, 8), f32]):
            y = sub(x, x)
            return y

        @graph.function
        def main(c: Tensor[(), bool], x: Tensor[(n, 8), f32], w: Tensor[(8, 8), f32]):
            y = cond(c, x, w, then=body, orelse=other, out=(Tensor[(n, 8), f32],))
            return y
    """
    module, _ = lowered(text, product())
    assert "call_library(mine.gemm" in str(module.graph("body"))


def test_attributes_are_passed_as_numbers():
    x, y = tensor(f32, leading(N)), tensor(f32, leading(N))
    leaky = is_op(LeakyRelu, x)
    function = Lowering(
        leaky,
        y,
        "void leaky(const float *x, float *y, int64_t n, float slope)",
        (x, y, N, Field(leaky, "slope")),
    )
    text = """
        @graph.function
        def main(x: Tensor[(n, 3), f32]):
            y = {}
            return y
    """
    module, _ = lowered(text.format("leaky_relu(x, slope=0.5)"), function)
    call = "call_library(mine.leaky, x, out=(Tensor[(n, 3), f32],), symbols=(f32(0.5),))"
    assert_same_ir(module, ir(text.format(call)))


def test_the_higher_priority_goes_first():
    module, (choice,) = lowered(LAYER, product("slow"), product("fast", priority=2))
    assert "mine.fast" in str(module)
    assert choice.reason == "priority 2, not measured"


@pytest.mark.parametrize("priority", [0, -1])
def test_without_priority_or_measurement_code_is_generated(priority):
    module, (choice,) = lowered(LAYER, product(priority=priority))
    assert_same_ir(module, ir(LAYER))
    assert choice.chosen == GENERATED
    assert f"priority {priority}" in choice.reason


def times(seconds, *lowerings, **options):
    """Measurements of the first part that a library could compute, in the order of its keys."""
    _, (choice, *_) = lowered(LAYER, *lowerings, **options)
    return RecordedTimes(dict(zip(choice.keys, seconds, strict=True)))


@pytest.mark.parametrize(
    ("generated", "library", "chosen"),
    [(3e-3, 1e-3, "mine.gemm"), (1e-3, 3e-3, GENERATED), (1e-3, 1e-3, GENERATED)],
)
@pytest.mark.parametrize("priority", [-1, 1])
def test_what_was_measured_to_be_faster_is_chosen(generated, library, chosen, priority):
    measured = times((generated, library), product(priority=priority))
    _, (choice,) = lowered(LAYER, product(priority=priority), measurements=measured)
    assert choice.chosen == chosen
    assert choice.reason.startswith("measured 1 ms, ")


def test_the_fastest_of_several_is_chosen():
    several = (product("first"), product("second"), product("third"))
    _, (choice,) = lowered(LAYER, *several)
    seconds = {GENERATED: 3.0, "mine.first": 2.0, "mine.second": 1.0, "mine.third": 2.5}
    measured = RecordedTimes({k: seconds[k.implementation] for k in choice.keys})
    _, (choice,) = lowered(LAYER, *several, measurements=measured)
    assert choice.chosen == "mine.second"


def test_times_of_another_machine_or_number_of_threads_do_not_count():
    here = {"machine": "here", "threads": 2}
    measured = times((1.0, 3.0), product(), **here)
    for options, chosen in (
        (here, GENERATED),
        ({**here, "threads": 1}, "mine.gemm"),
        ({**here, "machine": "there"}, "mine.gemm"),
    ):
        _, (choice,) = lowered(LAYER, product(), measurements=measured, **options)
        assert choice.chosen == chosen


def test_equal_parts_of_different_programs_have_one_key():
    renamed = """
        @graph.function
        def main(p: Tensor[(rows, 64), f32], q: Tensor[(64, 32), f32]):
            h = relu(p)
            g = matmul(h, q)
            return g
    """
    _, (one,) = lowered(LAYER, product())
    _, (other,) = lowered(renamed, product())
    assert one.keys == other.keys
    assert one.keys[0].part.startswith("@graph.function\ndef main(a0: Tensor[(s0, 64), f32]")


def test_a_part_reads_back_as_a_program():
    _, (choice,) = lowered(LAYER, linear())
    part = ir(choice.keys[0].part).graph("main")
    assert [b.op.op_name() for b in part.body] == ["matmul", "add", "relu"]


def test_strict_programs_keep_their_sums():
    module, (choice,) = lowered(LAYER, product(), strict=True)
    assert_same_ir(module, ir(LAYER))
    assert "strict" in choice.reason
    module, _ = lowered(LAYER, product(exact=True), strict=True)
    assert_same_ir(module, ir(PART))


def test_the_log_says_what_was_chosen_and_why(caplog):
    with caplog.at_level(logging.INFO, "treadle.passes"):
        lowered(LAYER, product())
    assert "matmul by mine.gemm: priority 1, not measured" in caplog.text


def test_overlapping_parts_are_computed_once():
    x, y = tensor(f32, leading(N)), tensor(f32, leading(N))
    z = tensor(f32, leading(N))
    text = """
        @graph.function
        def main(x: Tensor[(n,), f32], y: Tensor[(n,), f32]):
            a = mul(x, y)
            b = sub(a, y)
            c = relu(b)
            return c
    """
    names = ("const float *x", "const float *y", "float *z", "int64_t n")
    first = Lowering(
        is_op(Sub, is_op(Mul, x, y), y), z, f"void first({', '.join(names)})", (x, y, z, N)
    )
    last = Lowering(
        is_op(Relu, is_op(Sub, x, y)), z, f"void last({', '.join(names)})", (x, y, z, N)
    )
    module, choices = lowered(text, first, last)
    assert [c.chosen for c in choices] == ["mine.last"]
    assert str(module).count("call_library") == 1


# ---- Whatever the graph

P, Q, R = (wildcard().has_dtype(f32) for _ in range(3))
RESULT = wildcard()
MEANINGS = {
    "add_relu": (is_op(Relu, is_op(Add, P, Q)), lambda p, q: np.maximum(p + q, 0)),
    "mul_add": (is_op(Add, is_op(Mul, P, Q), R), lambda p, q, r: p * q + r),
    "square": (is_op(Mul, P, P), lambda p: p * p),
    "sub_of_sums": (is_op(Sub, is_op(Add, P, Q), is_op(Add, P, R)), lambda p, q, r: p + q - p - r),
    "sum": (is_op(Sum, P, axes=(0,), keepdims=False), lambda p: p.sum(0)),
    "doubled": (is_op(Add, P, P), lambda p: p + p),
    "relu": (is_op(Relu, P), lambda p: np.maximum(p, 0)),
}


@given(modules(ops=8), st.sets(st.sampled_from(sorted(MEANINGS)), min_size=1))
def test_a_program_means_the_same_whatever_is_called(module, names):
    chosen = sorted(names)
    lowerings = tuple(Lowering(MEANINGS[n][0], RESULT, lambda: None, name=n) for n in chosen)
    lowered = lower_libraries(module, libraries=[Library("mine", lowerings)])
    functions = {f"mine.{n}": MEANINGS[n][1] for n in chosen}
    inputs = random_inputs(module.graph("main"))
    expected = run(module, "main", *inputs)
    found = run(lowered, "main", *inputs, libraries=functions)
    assert_close(found, expected)
    verify(lowered)
    assert_same_ir(parse_again(lowered), lowered)


def parse_again(module):
    arrays = {name: c.array for name, c in module.constants.items()}
    return ir(str(module), arrays)
