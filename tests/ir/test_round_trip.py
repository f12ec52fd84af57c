"""The text is the IR: what is printed reads back as the same program."""

from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given, settings

from treadle.base.span import Span
from treadle.expr.dtype import bf16, f16, f32, i8, i64, u8
from treadle.expr.scalar import Const, Var, apply, const
from treadle.ir.calls import Call, Cond, WhileLoop
from treadle.ir.graph import Binding, GraphFunction, Value
from treadle.ir.module import Constant, Module
from treadle.ir.parser import parse, parse_function
from treadle.ir.parser.expressions import Scope
from treadle.ir.parser.source import Source
from treadle.ir.types import TensorType, tensor
from treadle.ops import OPS_BY_NAME
from treadle.testing import assert_same_ir, expressions, ir, modules, tensor_functions


def same(a, b):
    """Whether two nodes agree in all but their spans; what is interned must be one object."""
    if isinstance(a, Span | None) and isinstance(b, Span | None):
        return True
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a.astype(float), b.astype(float), True)
    if is_dataclass(a) and not isinstance(a, TensorType):
        pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)]
        return type(a) is type(b) and all(same(x, y) for x, y in pairs)
    return a is b if hasattr(a, "children") or hasattr(a, "scope") else a == b


def read(text, dtype, **types):
    scope = Scope(Source("<test>", (text,)))
    names = {name: Var(name, t) for name, t in types.items()}
    scope.variables.update(names)
    return scope.expr(scope.source.parse().body[0].value, dtype)


@given(expressions())
@settings(deadline=None)
def test_an_integer_expression_reads_back_as_the_same_object(x):
    assert read(str(x), i64, a=i64, b=i64, c=i64) is x


@given(expressions(f32))
@settings(deadline=None)
def test_a_float_expression_reads_back_as_the_same_object(x):
    assert read(str(x), f32, a=f32, b=f32, c=f32) is x


@pytest.mark.parametrize(
    "x",
    [
        Const(0.1, f32),
        Const(0.1, f16),
        Const(0.1, bf16),
        Const(-0.0, f32),
        Const(float("nan"), f32),
        Const(float("-inf"), bf16),
        Const(-128, i8),
        Const(255, u8),
        Const(-(2**63), i64),
        const(True),
        Const(1.5, f32.vector(8)),
        apply("ramp", Var("a"), 1, dtype=i64.vector(16)),
        apply("broadcast", Var("a"), dtype=i64.vector(4)),
        apply("reduce_add", apply("broadcast", Var("a"), dtype=i64.vector(4)), dtype=i64),
        apply("floordiv", const(1), const(0)),
        apply("bitcast", Var("a"), dtype=f32.vector(2)),
    ],
    ids=str,
)
def test_corner_values_read_back(x):
    assert read(str(x), i64, a=i64) is x


@given(tensor_functions())
@settings(deadline=None)
def test_a_generated_loop_program_reads_back(function):
    again = parse_function(str(function))
    assert_same_ir(again, function)
    assert same(again, function)


@given(modules())
@settings(deadline=None)
def test_a_generated_module_reads_back(module):
    again = parse(str(module), OPS_BY_NAME)
    assert_same_ir(again, module)
    assert same(dict(again.functions), dict(module.functions))
    assert same(dict(again.constants), dict(module.constants))


EVERY_STATEMENT = """
    @tensor.function
    def f(X: Buffer[(n, 64), f32], k: i64, s: f32, Y: Output[(n, 64), f32]):
        assume(n >= 1)
        assume(k < n)
        T = alloc((6, 4), f32x16, scope="register")
        S = alloc((n,), i32)
        for i in range(n):
            for j in vectorized(64):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(64, j)
                    vk = reduction(1, 0)
                    where(i * 4 + j < n)
                    with init():
                        Y[vi, vj] = f32(0.0)
                    Y[vi, vj] = X[vi, vj] * s + Y[vi, vj]
        for p in parallel(2):
            for u in unrolled(3):
                T[u, 0] = f32x16(1.0)
        if (n > 3) & (k == 0):
            pass
        else:
            x = let(Y[0, 0])
            m = let(ramp(0, 1, i64x16) < broadcast(n, i64x16))
            store(Y[0, ramp(0, 1, i64x16)], f32x16(1.0), mask=m)
            Y[0, ramp(16, 1, i64x16)] = load(X[0, ramp(0, 2, i64x16)], mask=m)
            prefetch(X[0, 0])
"""


def test_every_statement_reads_back():
    module = ir(EVERY_STATEMENT)
    assert_same_ir(parse(str(module), {}), module)
    assert same(parse(str(module), {}).functions["f"], module.functions["f"])


def test_the_printed_text_is_the_canonical_one():
    text = str(ir(EVERY_STATEMENT))
    assert text == str(parse(text, {}))
    assert '    T = alloc((6, 4), f32x16, scope="register")\n' in text
    assert "            store(Y[0, ramp(0, 1, i64x16)], f32x16(1.0), mask=m)\n" not in text
    assert "        store(Y[0, ramp(0, 1, i64x16)], f32x16(1.0), mask=m)\n" in text


def test_joints_and_atoms_read_back():
    module = ir("""
        w = constant(Tensor[(2, 2), f32], [[1.0, float("nan")], [float("-inf"), -0.0]])
        e = constant(Tensor[(0, 3), i8], [])
        t = constant(Tensor[(), bool], True)

        @graph.function
        def half(c: Tensor[(), bool], x: Tensor[(n, 64), f32]) -> (Tensor[(n, 64), f32],):
            return x

        @graph.function
        def main(
            x: Tensor[(n, 64), f32], s: Shape[(m,)]
        ) -> (Tensor[(m, 64), f32], Tensor[(), f32]):
            assume(n >= 2)
            c = call(half, constants.t, x, out=(Tensor[(n, 64), f32],))
            l = call_library(gemm, c, constants.w, out=(Tensor[(n, 64), f32],))
            u = match_cast(l, type=Tensor[(m, 64), f32])
            r: Tensor[ndim(2), f32] = relu(u)
            a, b = call(
                half, f32(0.5), i64(3), literal(n + 1), shape(n, 4), True, constants.w,
                out=(Tensor[(n, 64), f32], Shape[(n,)]),
            )
            i = cond(constants.t, x, then=half, orelse=half, out=(Tensor[(n, 64), f32],))
            k = while_loop(i, x, condition=half, body=half, carried=1, out=(Tensor[(n, 64), f32],))
            p, q = typed(
                call(half, k, out=(Tensor[(n, 64), f32], Shape[(n,)])),
                Tensor[ndim(2), f32],
                Shape[(n,)],
            )
            return u, f32(1.5)
    """)
    again = parse(str(module), OPS_BY_NAME)
    assert_same_ir(again, module)
    assert same(dict(again.functions), dict(module.functions))
    assert same(dict(again.constants), dict(module.constants))


def test_joints_print_function_names_bare():
    x = Value("x", tensor((2,), f32))
    out = (tensor((2,), f32),)
    text = ""
    for op in (Call("g", out), Cond("g", "h", out), WhileLoop("g", "h", 1, out)):
        binding = Binding((Value("y", out[0]),), op, (x,))
        text += str(GraphFunction("f", (x,), (binding,), (x,)))
    assert "y = call(g, x, out=(Tensor[(2,), f32],))" in text
    assert "y = cond(x, then=g, orelse=h, out=(Tensor[(2,), f32],))" in text
    assert "y = while_loop(x, condition=g, body=h, carried=1, out=(Tensor[(2,), f32],))" in text


def test_a_large_constant_prints_without_data_and_takes_it_from_outside():
    array = np.arange(17, dtype=np.float32)
    module = Module({}, {"w": Constant(tensor((17,), f32), array)})
    assert str(module) == "w = constant(Tensor[(17,), f32])\n"
    again = parse(str(module), {}, {"w": array})
    assert again.constants["w"].array is array


def test_a_result_type_that_inference_gives_is_not_written():
    module = ir("""
        @graph.function
        def main(x: Tensor[(n,), f32]) -> Tensor[(n,), f32]:
            y: Tensor[(n,), f32] = relu(x)
            return y
    """)
    assert "    y = relu(x)\n" in str(module)


def test_spans_name_the_place_in_the_text():
    module = parse(
        "@graph.function\ndef main(x: Tensor[(n,), f32]):\n    y = relu(x)\n    return y\n",
        OPS_BY_NAME,
        source="model.py",
    )
    main = module.graph("main")
    assert str(main.span) == "model.py:2:1"
    assert str(main.body[0].span) == "model.py:3:5"
