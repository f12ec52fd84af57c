"""The rules of graph functions, one by one.

The list follows what Relax's checker of well-formed modules demands (arXiv 2311.02103, §3), as far
as a program can break it here: operands are names, numbers or constants by construction, branches
and loop bodies are functions, and purity is inferred.
"""

import numpy as np
import pytest

from treadle.base.errors import VerifyError
from treadle.expr.dtype import boolean, f32, i64
from treadle.expr.scalar import Var, as_expr, const
from treadle.ir.calls import Call, CallLibrary, CallTensor, Cond, MatchCast, WhileLoop
from treadle.ir.graph import (
    Binding,
    ConstantRef,
    GraphFunction,
    Literal,
    ShapeLiteral,
    Value,
)
from treadle.ir.module import Constant, Module
from treadle.ir.types import ShapeType, TensorType, tensor
from treadle.ir.verify import verify
from treadle.ops import Add, Matmul, Relu
from treadle.testing import ir

N, M = Var("n"), Var("m")
ROW = tensor((N,), f32)
BOOL = tensor((), boolean)
X, Y = Value("x", ROW), Value("y", ROW)
FLAG = Value("flag", BOOL)
RELU = Binding((Y,), Relu(), (X,))

HELPERS = ir("""
@tensor.function
def scaled(X: Buffer[(k, 4), f32], s: i64, Y: Output[(k, 4), f32]):
    for i in range(k):
        for j in range(4):
            with block("Y"):
                vi = spatial(k, i)
                vj = spatial(4, j)
                Y[vi, vj] = X[vi, vj]

@graph.function
def same(x: Tensor[(k,), f32]) -> (Tensor[(k,), f32],):
    y = relu(x)
    return y

@graph.function
def square(x: Tensor[(k, k), f32]) -> (Tensor[(k, k), f32],):
    y = relu(x)
    return y

@graph.function
def more(x: Tensor[(k,), f32]) -> (Tensor[(), bool],):
    s = sum(x, axes=(0,))
    y = greater(s, f32(0.0))
    return y

@graph.function
def total(x: Tensor[(k,), f32]) -> (Tensor[(), f32],):
    y = sum(x, axes=(0,))
    return y
""")


def function(*body, params=(X, FLAG), results=(Y,), **rest):
    return GraphFunction("main", params, body, results, **rest)


def module(f, **constants):
    return Module({**HELPERS.functions, f.name: f}, constants)


def call(op, *args, out=ROW):
    return Binding((Value("y", out),), op, args)


def last(binding, **rest):
    return function(binding, results=binding.outputs, **rest)


WIDE = tensor((N, 4), f32)
XW, X5 = Value("x", WIDE), Value("x", tensor((N, 5), f32))
XNM, XC = Value("x", tensor((N, M), f32)), Value("x", TensorType(None, 1, f32))
BAD = {
    "a value is defined once": ("E0201", function(RELU, RELU)),
    "a parameter is defined once": ("E0201", function(RELU, params=(X, X))),
    "a parameter is not defined again": ("E0201", function(RELU, params=(X, Y))),
    "a value is defined before its use": (
        "E0202",
        function(Binding((Y,), Relu(), (Value("q", ROW),))),
    ),
    "a result is a value of the function": ("E0202", function(RELU, results=(Value("q", ROW),))),
    "a symbol has a value": ("E0202", last(call(Relu(), X, out=tensor((M,), f32)))),
    "a symbol of a shape has a value": (
        "E0202",
        function(RELU, Binding((Value("z", ROW),), Call("same", (ROW,)), (ShapeLiteral((M,)),))),
    ),
    "an assumption is about known symbols": ("E0202", function(RELU, assumes=(M >= 1,))),
    "an assumption is a claim": ("E0203", function(RELU, assumes=(N + 1,))),
    "a dimension is an integer": (
        "E0203",
        function(params=(Value("x", TensorType((const(1.5),), 1, f32)),), results=()),
    ),
    "a dimension is not negative": (
        "E0205",
        function(params=(Value("x", tensor((-1,), f32)),), results=()),
    ),
    "a name is a word": ("E0204", function(RELU, params=(X, Value("a b", ROW)))),
    "a recorded type is what the operation gives": (
        "E0205",
        last(call(Relu(), X, out=tensor((N + 1,), f32))),
    ),
    "an operation takes its operands": ("E0205", last(call(Matmul(), X, X, out=WIDE))),
    "an operation takes as many operands": ("E0205", last(call(Add(), X))),
    "an operation gives as many results": (
        "E0205",
        function(Binding((Y, Value("z", ROW)), Relu(), (X,))),
    ),
    "a constant is the module's": ("E0206", last(call(Relu(), ConstantRef("v", ROW)))),
    "a constant has its type": (
        "E0206",
        last(call(Relu(), ConstantRef("w", tensor((4,), f32)), out=tensor((4,), f32))),
    ),
    "a called function is the module's": ("E0206", last(call(Call("other", (ROW,)), X))),
    "a called function is of the right kind": ("E0206", last(call(Call("scaled", (ROW,)), X))),
    "a loop program is called as one": ("E0206", last(call(CallTensor("same", (ROW,)), X))),
    "a call has as many operands": ("E0206", last(call(Call("same", (ROW,)), X, X))),
    "a call passes as many numbers": (
        "E0206",
        last(
            call(CallTensor("scaled", (WIDE,)), XW, out=WIDE),
            params=(XW,),
        ),
    ),
    "an operand can have the parameter's type": (
        "E0205",
        last(call(Call("square", (WIDE,)), X, out=WIDE)),
    ),
    "an operand has the buffer's shape": (
        "E0205",
        last(
            call(CallTensor("scaled", (WIDE,), (N,)), X5, out=WIDE),
            params=(X5,),
        ),
    ),
    "a call gives what the signature says": (
        "E0205",
        last(call(Call("same", (tensor((N, 1), f32),)), X, out=tensor((N, 1), f32))),
    ),
    "a condition is a bool of rank 0": ("E0205", last(call(Cond("same", "same", (ROW,)), X, X))),
    "both branches give what is said": (
        "E0205",
        last(call(Cond("same", "total", (ROW,)), FLAG, X)),
    ),
    "a loop's condition gives a bool": (
        "E0205",
        last(call(WhileLoop("total", "same", 1, (ROW,)), X)),
    ),
    "a loop carries what its body gives": (
        "E0205",
        last(call(WhileLoop("more", "total", 1, (ROW,)), X)),
    ),
    "a loop carries as many values as it gives": (
        "E0206",
        last(call(WhileLoop("more", "same", 2, (ROW,)), X)),
    ),
    "a cast keeps the element type": (
        "E0205",
        last(call(MatchCast(tensor((N,), i64)), X, out=tensor((N,), i64))),
    ),
    "no function calls itself": ("E0206", last(call(Call("main", (ROW,)), X, FLAG))),
    "names for callers are as many as values": ("E0204", function(RELU, inputs=("a",))),
}


@pytest.mark.parametrize(("code", "f"), BAD.values(), ids=BAD)
def test_a_function_that_breaks_a_rule_is_refused(code, f):
    w = Constant(tensor((3,), f32), np.zeros(3, np.float32))
    with pytest.raises(VerifyError) as caught:
        verify(module(f, w=w))
    assert caught.value.code == code


def test_functions_that_call_each_other_in_a_circle_are_refused():
    there = GraphFunction("there", (X,), (call(Call("back", (ROW,)), X),), (Y,))
    back = GraphFunction("back", (X,), (call(Call("there", (ROW,)), X),), (Y,))
    there = GraphFunction("there", (X,), there.body, there.body[0].outputs)
    back = GraphFunction("back", (X,), back.body, back.body[0].outputs)
    with pytest.raises(VerifyError, match="E0206"):
        verify(Module({"there": there, "back": back}, {}))


def test_a_function_is_filed_under_its_name():
    with pytest.raises(VerifyError, match="E0201"):
        verify(Module({"other": function(RELU)}, {}))


GOOD = {
    "operands may be coarser": last(
        call(Call("same", (ROW,)), XC),
        params=(XC, Value("z", ROW)),
    ),
    "recorded types may be coarser": last(call(Relu(), X, out=TensorType(None, 1, f32))),
    "dimensions may be equal by chance": last(
        call(
            Call("square", (tensor((N, N), f32),)),
            XNM,
            out=tensor((N, N), f32),
        ),
        params=(XNM,),
    ),
    "a cast binds symbols": last(call(MatchCast(tensor((M,), f32)), X, out=tensor((M,), f32))),
    "shapes bind symbols": last(call(Relu(), X), params=(X, Value("s", ShapeType((M,))))),
    "branches": last(call(Cond("same", "same", (ROW,)), FLAG, X)),
    "loops": last(call(WhileLoop("more", "same", 1, (ROW,)), X)),
    "numbers": last(
        call(CallTensor("scaled", (WIDE,), (as_expr(3),)), XW, out=WIDE),
        params=(XW,),
    ),
    "functions outside": last(call(CallLibrary("any", (ROW,)), Literal(N))),
}


@pytest.mark.parametrize("f", GOOD.values(), ids=GOOD)
def test_a_function_that_keeps_the_rules_is_accepted(f):
    verify(module(f))
