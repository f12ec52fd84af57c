"""The verifier refuses each broken rule with its code, at its line, and accepts what keeps them."""

import numpy as np
import pytest
from hypothesis import given, settings

from treadle.base.errors import VerifyError
from treadle.expr.dtype import boolean, f32, i64
from treadle.expr.scalar import Apply, Const, Var, apply, const
from treadle.ir.graph import Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Constant, Module
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Let,
    Load,
    Store,
    TensorFunction,
    spatial,
)
from treadle.ir.types import tensor
from treadle.ir.verify import verify, verify_tensor_function
from treadle.ops import Relu
from treadle.testing import ir, modules, tensor_functions

Y = Buffer("Y", (8,), f32)
X = Buffer("X", (8,), f32)
P, Q = Var("i"), Var("j")
ZERO = Const(0.0, f32)
LANES = apply("ramp", 0, 1, dtype=i64.vector(4))
Z = Buffer("Z", (8, 8), f32)


def tensor_function(*body, params=(X, Z, Y)):
    return TensorFunction("f", params, 1, body)


def refused(code, program):
    check = verify_tensor_function if isinstance(program, TensorFunction) else verify
    with pytest.raises(VerifyError) as caught:
        check(program)
    assert caught.value.code == code
    return caught.value


@given(tensor_functions())
@settings(deadline=None, max_examples=50)
def test_generated_loop_programs_keep_the_rules(function):
    verify_tensor_function(function)


@given(modules())
@settings(deadline=None, max_examples=50)
def test_generated_modules_keep_the_rules(module):
    verify(module)


LOOP_MISTAKES = {
    "loop twice": ("E0201", For(P, const(8), (For(P, const(8), (Store(Y, (P,), ZERO),)),))),
    "buffer like parameter": ("E0201", Allocate(Buffer("X", (2,), f32))),
    "block twice": ("E0201", For(P, const(8), (Block("b", (), ()), Block("b", (), ())))),
    "variable outside its loop": ("E0202", Store(Y, (P,), ZERO)),
    "let outside its body": ("E0202", Store(Y, (const(0),), Var("z", f32))),
    "buffer without memory": ("E0202", Store(Y, (const(0),), Buffer("Z", (8,), f32)[0])),
    "store without memory": ("E0202", Store(Buffer("Z", (8,), f32), (const(0),), ZERO)),
    "extent out of scope": ("E0202", For(P, Q, ())),
    "float index": ("E0203", Store(Y, (ZERO,), ZERO)),
    "rank of a store": ("E0203", Store(Y, (const(0), const(0)), ZERO)),
    "rank of a load": ("E0203", Store(Y, (const(0),), Load(X, (const(0), const(0))))),
    "value of another type": ("E0203", Store(Y, (const(0),), const(1))),
    "mask that is no bool": ("E0203", Store(Y, (const(0),), ZERO, const(1))),
    "float extent": ("E0203", For(P, ZERO, ())),
    "let of another type": ("E0203", Let(Var("z", f32), const(1))),
    "operands of another type": (
        "E0203",
        Store(Y, (const(0),), Apply("add", (ZERO, Load(X, (LANES,))), f32)),
    ),
    "comparison of vectors": (
        "E0203",
        If(Apply("lt", (Load(X, (LANES,)), Load(X, (LANES,))), boolean), ()),
    ),
    "two vector indices": ("E0203", Store(Z, (LANES, LANES), ZERO)),
    "vector condition": ("E0203", If(LANES < LANES, ())),
    "keyword": ("E0204", For(Var("for"), const(8), ())),
    "element type": ("E0204", For(Var("f32"), const(8), ())),
    "input written": ("E0210", Store(X, (const(0),), ZERO)),
}


@pytest.mark.parametrize(("code", "stmt"), LOOP_MISTAKES.values(), ids=LOOP_MISTAKES)
def test_a_loop_program_that_breaks_a_rule_is_refused(code, stmt):
    error = refused(code, tensor_function(stmt))
    assert any("^" in line for line in error.excerpt)


def test_a_let_is_seen_by_what_follows_only():
    z = Var("z", f32)
    use = Store(Y, (const(0),), z)
    verify_tensor_function(tensor_function(Let(z, ZERO), use))
    refused("E0202", tensor_function(use, Let(z, ZERO)))
    refused("E0202", tensor_function(For(P, const(8), (Let(z, ZERO),)), use))


def test_an_assumption_speaks_of_the_function_s_symbols():
    function = TensorFunction("f", (X, Y), 1, (), (Var("q") >= 1,))
    refused("E0202", function)


def test_a_register_is_indexed_by_constants_once_loops_are_final():
    t = Buffer("T", (8,), f32, "register")
    body = (Allocate(t), For(P, const(8), (Store(t, (P,), ZERO),)))
    refused("E0209", tensor_function(*body))
    unrolled = (Allocate(t), For(P, const(8), (Store(t, (P,), ZERO),), "unrolled"))
    verify_tensor_function(tensor_function(*unrolled))
    verify_tensor_function(tensor_function(Allocate(t), Store(t, (const(3),), ZERO)))


def blocks(*axes, extent=16, where=None):
    guard = "" if where is None else f"\n            where({where})"
    lines = "".join(f"\n            {axis}" for axis in axes)
    return ir(f"""
@tensor.function
def f(X: Buffer[(64,), f32], Y: Output[(64,), f32]):
    for i in range({extent}):
        for j in range(4):
          with block("Y"):{lines}{guard}
            Y[a] = X[a]
""")


@pytest.mark.parametrize(
    "axes",
    [
        ("a = spatial(4, i // 4)", "b = spatial(4, i % 4)"),
        ("a = spatial(16, i)", "b = spatial(4, j)"),
        ("a = spatial(64, i * 4 + j)",),
        ("a = spatial(64, j * 16 + i)",),
        ("a = spatial(2, i // 8)", "b = spatial(4, i // 2 % 4)", "c = reduction(2, i % 2)"),
        ("a = spatial(11, (i * 4 + j) // 6)", "b = spatial(6, (i * 4 + j) % 6)"),
        ("a = spatial(64, i * 2 + j)",),
        ("a = spatial(22, (i + j) // 3 + i)", "b = spatial(3, 0)"),
        ("a = reduction(64, i * 4 + j)",),
    ],
    ids=str,
)
def test_independent_axes_are_accepted(axes):
    verify(blocks(*axes))


@pytest.mark.parametrize(
    "axes",
    [
        ("a = spatial(16, i)", "b = spatial(32, 2 * i)"),
        ("a = spatial(16, i)", "b = spatial(16, i)"),
        ("a = spatial(8, i // 2)", "b = spatial(4, i % 4)"),
        ("a = spatial(64, i * 4 + j)", "b = reduction(4, j)"),
        ("a = spatial(11, (i * 4 + j) // 6)", "b = spatial(6, (i * 4 + j) % 7)"),
        ("a = reduction(34, i * 2 + j)",),
    ],
    ids=str,
)
def test_dependent_axes_are_refused(axes):
    refused("E0208", blocks(*axes))


def test_a_box_that_simplification_hides_is_seen_by_trying():
    where = "i * 9 + j * 2 < 35"
    verify(
        blocks("a = spatial(5, (i * 2 + j) // 7 + i)", "b = spatial(7, (i * 2 + j) % 7)", extent=1)
    )
    refused("E0208", blocks("a = spatial(16, i)", "b = spatial(16, (i + j) // 2)", where=where))


@pytest.mark.parametrize("width", [3, 16, 24])
def test_axes_of_elements_that_are_walked_in_a_line_are_independent(width):
    text = f"""
        @tensor.function
        def copy(X: Buffer[(b, t, {width}), f32], Y: Output[(b, t, {width}), f32]):
            for i in range((b * t * {width} + 15) // 16):
                for j in vectorized(16):
                    with block("Y"):
                        a = spatial(b, (i * 16 + j) // (t * {width}))
                        c = spatial(t, (i * 16 + j) // {width} % t)
                        d = spatial({width}, DIGIT % {width})
                        where(i * 16 + j < b * t * {width})
                        Y[a, c, d] = X[a, c, d]
    """
    verify(ir(text.replace("DIGIT", "(i * 16 + j)")))
    verify(ir(text.replace("DIGIT", f"(i * {16 % width} + j)")))
    refused("E0208", ir(text.replace("DIGIT", f"(i * {16 % width + 1} + j)")))


def test_an_axis_stays_in_its_domain():
    refused("E0207", blocks("a = spatial(8, i)"))
    refused("E0207", blocks("a = spatial(16, i - 1)"))
    verify(blocks("a = spatial(8, i)", where="i < 8"))


def test_a_reduction_covers_its_domain():
    refused("E0207", blocks("a = spatial(4, j)", "b = reduction(17, i)"))
    verify(blocks("a = spatial(4, j)", "b = spatial(17, i)"))


# ---- Graphs

GRAPH_MISTAKES = {
    "undefined symbol": ("E0202", "y = relu(x)\n    return literal(q)"),
    "symbol of an operation": (
        "E0202",
        "y = full(shape=(q,), value=0.0, dtype=f32)\n    return y",
    ),
    "type that contradicts": ("E0205", "y: Tensor[(n, 5), f32] = relu(x)\n    return y"),
    "other element type": ("E0205", "y: Tensor[(n, 4), f64] = relu(x)\n    return y"),
    "other rank": ("E0205", "y: Tensor[ndim(3), f32] = relu(x)\n    return y"),
    "missing function": ("E0206", "y = call(g, x, out=(Tensor[(n, 4), f32],))\n    return y"),
    "missing loop program": (
        "E0206",
        "y = call_tensor(main, x, out=(Tensor[(n, 4), f32],))\n    return y",
    ),
    "arguments": ("E0206", "y = call(main, x, x, out=(Tensor[(n, 4), f32],))\n    return y"),
    "results": (
        "E0206",
        "y, z = call(main, x, out=(Tensor[(n, 4), f32], Tensor[(n, 4), f32]))\n    return y",
    ),
    "missing branch": (
        "E0206",
        "y = cond(True, x, then=main, orelse=g, out=(Tensor[(n, 4), f32],))\n    return y",
    ),
    "operands of a kernel": (
        "E0206",
        "y = call_tensor(k, out=(Tensor[(n,), f32],))\n    return y",
    ),
    "rank of a kernel's operand": (
        "E0206",
        "y = call_tensor(k, x, out=(Tensor[(n,), f32],))\n    return y",
    ),
    "element type": ("E0204", "f32 = relu(x)\n    return f32"),
}
KERNEL = "@tensor.function\ndef k(A: Buffer[(n,), f32], B: Output[(n,), f32]):\n    pass\n\n"
HEADER = "@graph.function\ndef main(x: Tensor[(n, 4), f32]):\n    "


@pytest.mark.parametrize(("code", "body"), GRAPH_MISTAKES.values(), ids=GRAPH_MISTAKES)
def test_a_graph_that_breaks_a_rule_is_refused(code, body):
    refused(code, ir(KERNEL + HEADER + body + "\n"))


def test_a_coarser_type_is_accepted():
    verify(ir(HEADER + "y: Tensor[ndim(2), f32] = relu(x)\n    return y\n"))
    verify(ir(HEADER + "y: Tensor[(n + 0 * n, 4), f32] = relu(x)\n    return y\n"))


def test_values_are_defined_once_and_before_their_use():
    type_ = tensor((2,), f32)
    x, y, z = (Value(n, type_) for n in "xyz")
    first, second = Binding((y,), Relu(), (x,)), Binding((z,), Relu(), (y,))
    good = GraphFunction("main", (x,), (first, second), (z,))
    verify(Module({"main": good}))
    for code, function in (
        ("E0202", GraphFunction("main", (x,), (second, first), (z,))),
        ("E0201", GraphFunction("main", (x,), (first, Binding((y,), Relu(), (x,))), (y,))),
        ("E0202", GraphFunction("main", (x,), (first,), (z,))),
        ("E0202", GraphFunction("main", (Value("x", type_),), (first,), (y,))),
    ):
        refused(code, Module({"main": function}))
    refused("E0201", Module({"other": good}))


def test_constants_exist_with_their_type():
    type_ = tensor((2,), f32)
    x, w = Value("x", type_), ConstantRef("w", type_)
    function = GraphFunction("main", (x,), (), (w,))
    refused("E0206", Module({"main": function}))
    wrong = Constant(tensor((3,), f32), np.zeros(3, np.float32))
    refused("E0206", Module({"main": function}, {"w": wrong}))
    right = Constant(type_, np.zeros(2, np.float32))
    verify(Module({"main": function}, {"w": right}))


def test_a_refusal_shows_the_line_and_its_place():
    module = ir(HEADER + "y: Tensor[(n, 5), f32] = relu(x)\n    return y\n", source="model.py")
    error = refused("E0205", module)
    assert error.place == "model.py:3:5"
    assert "    y: Tensor[(n, 5), f32] = relu(x)" in error.excerpt
    assert "    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^" in error.excerpt
    assert "its operation gives Tensor[(n, 4), f32]" in error.notes


def test_axes_of_an_outer_block_move_inner_ones():
    outer = spatial("a", 8, P)
    inner = Block("inner", (spatial("b", 8, Var("a")),), (Store(Y, (Var("b"),), ZERO),))
    function = tensor_function(For(P, const(8), (Block("outer", (outer,), (inner,)),)))
    verify_tensor_function(function)
    twice = Block("inner", (spatial("b", 8, Var("a")), spatial("c", 8, Var("a"))), ())
    refused("E0208", tensor_function(For(P, const(8), (Block("outer", (outer,), (twice,)),))))
