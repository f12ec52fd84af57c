"""For tests of Treadle and of what is built on it: programs from text, comparison, and generated
programs.
"""

import difflib
import textwrap
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from treadle.base.errors import InternalError
from treadle.expr.dtype import DType, f32, i32, i64
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import (
    Const,
    Expr,
    ExprLike,
    Var,
    apply,
    cast,
    const,
    maximum,
    minimum,
    select,
)
from treadle.ir.analysis import shape_symbols, type_exprs
from treadle.ir.graph import GraphFunction
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.loop_builder import Combine, LoopBuilder, guarded
from treadle.ir.module import Function, Module
from treadle.ir.parser import parse
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import ShapeType, TensorType, tensor
from treadle.ops import OPS_BY_NAME, Abs, Add, Cast, Maximum, Mul, Neg, Permute, Relu, Sub, Sum

__all__ = [
    "assert_same_ir",
    "expressions",
    "ir",
    "modules",
    "random_inputs",
    "tensor_functions",
]


def ir(
    text: str,
    constants: Mapping[str, np.ndarray] = {},
    source: str = "<text>",
) -> Module:
    """The module that a text (indented as it likes) describes, with the standard operations.

    Raises:
        ParseError, TypeMismatch: as ``treadle.ir.parser.parse`` says.
    """
    return parse(textwrap.dedent(text), OPS_BY_NAME, constants, source)


def assert_same_ir(actual: Module | Function, expected: Module | Function) -> None:
    """Fail, with a readable difference, unless two programs have one text.

    Raises:
        AssertionError: if they differ.
    """
    found, wanted = str(actual), str(expected)
    if found != wanted:
        lines = difflib.unified_diff(
            wanted.splitlines(), found.splitlines(), "expected", "actual", lineterm="", n=5
        )
        raise AssertionError("the programs differ:\n" + "\n".join(lines))


# ---- Inputs


def random_inputs(
    function: Function,
    sizes: Mapping[str, int] = {},
    seed: int = 0,
) -> tuple[np.ndarray, ...]:
    """Arrays for a function's inputs, the same for the same seed.

    ``sizes`` gives values of symbols; the others are small and keep what the function assumes.
    Floats lie in [-2, 2), integers in [0, 4).

    Raises:
        InternalError: when no small sizes keep the assumptions.
    """
    rng = np.random.default_rng(seed)
    symbols = _sizes(function, sizes, rng)
    if isinstance(function, TensorFunction):
        buffers = function.input_buffers
        return tuple(_random_array(b.shape, b.dtype, symbols, rng) for b in buffers)
    return tuple(_random_param(p.type, symbols, rng) for p in function.params)


def _sizes(
    function: Function, given: Mapping[str, int], rng: np.random.Generator
) -> dict[Var, int]:
    known = {v: given[v.name] for v in shape_symbols(function) if v.name in given}
    for _ in range(1000):
        tried = {v: known.get(v, int(rng.integers(1, 7))) for v in shape_symbols(function)}
        if all(
            evaluate(fact, tried) for fact in function.assumes if set(_free(fact)) <= set(tried)
        ):
            return tried
    raise InternalError(f"no small sizes keep what {function.name} assumes")


def _free(x: Expr) -> list[Expr]:
    if isinstance(x, Var):
        return [x]
    return [v for c in x.children for v in _free(c)]


def _random_param(
    type_: TensorType | ShapeType, symbols: Mapping[Var, int], rng: np.random.Generator
) -> np.ndarray:
    if isinstance(type_, ShapeType):
        return np.array([int(evaluate(d, symbols)) for d in type_.dims], np.int64)
    dims = type_exprs(type_) if type_.shape is not None else (const(3),) * type_.ndim
    return _random_array(dims, type_.dtype, symbols, rng)


def _random_array(
    dims: Sequence[Expr], dtype: DType, symbols: Mapping[Var, int], rng: np.random.Generator
) -> np.ndarray:
    shape = tuple(int(evaluate(d, symbols)) for d in dims)
    if dtype.is_float:
        return rng.uniform(-2, 2, shape).astype(dtype.numpy)
    return rng.integers(0, 2 if dtype.is_bool else 4, shape).astype(dtype.numpy)


# ---- Expressions

_FLOAT_BINARY = ("add", "sub", "mul", "div", "min", "max")
_FLOAT_UNARY = ("neg", "abs", "sqrt", "floor", "exp")
_INT_BINARY = ("add", "sub", "mul", "floordiv", "mod", "min", "max", "and", "or", "xor")
_INT_UNARY = ("neg", "abs", "invert")
_ORDER = ("lt", "le", "gt", "ge", "eq", "ne")

NAMES = ("a", "b", "c")


@st.composite
def expressions(
    draw: st.DrawFn, dtype: DType = i64, depth: int = 4, leaves: Sequence[Expr] | None = None
) -> Expr:
    """Expressions of a type, over variables ``a``, ``b``, ``c`` of it (or over ``leaves``)."""
    chosen = [Var(name, dtype) for name in NAMES] if leaves is None else list(leaves)
    return _expression(draw, dtype, depth, chosen)


def _expression(draw: st.DrawFn, dtype: DType, depth: int, leaves: Sequence[Expr]) -> Expr:
    kind = draw(st.integers(0, 5)) if depth else draw(st.integers(0, 1))
    if dtype.is_bool:
        return _truth(draw, depth, leaves)
    if kind == 0 or not leaves:
        return _number(draw, dtype)
    if kind == 1:
        return draw(st.sampled_from(leaves))
    if kind == 2:
        condition = _truth(draw, depth - 1, leaves)
        arms = [_expression(draw, dtype, depth - 1, leaves) for _ in range(2)]
        return select(condition, *arms)
    if kind == 3:
        unary = _FLOAT_UNARY if dtype.is_float else _INT_UNARY
        return apply(draw(st.sampled_from(unary)), _expression(draw, dtype, depth - 1, leaves))
    binary = _FLOAT_BINARY if dtype.is_float else _INT_BINARY
    operands = [_expression(draw, dtype, depth - 1, leaves) for _ in range(2)]
    return apply(draw(st.sampled_from(binary)), *operands)


def _number(draw: st.DrawFn, dtype: DType) -> Const:
    if dtype.is_float:
        value: float = draw(st.floats(-8, 8, width=16) | st.sampled_from((float("inf"), -0.0)))
        return Const(value, dtype)
    return Const(draw(st.integers(-8 if dtype.kind == "int" else 0, 8)), dtype)


def _truth(draw: st.DrawFn, depth: int, leaves: Sequence[Expr]) -> Expr:
    kind = draw(st.integers(0, 3)) if depth > 0 else 0
    if kind == 3:
        parts = [_truth(draw, depth - 1, leaves) for _ in range(2)]
        return apply(draw(st.sampled_from(("and", "or", "xor"))), *parts)
    if kind == 2:
        return ~_truth(draw, depth - 1, leaves)
    typed = [x for x in leaves if not x.dtype.is_bool]
    dtype = typed[0].dtype if typed else i64
    same = [x for x in typed if x.dtype == dtype]
    operands = [_expression(draw, dtype, max(0, depth - 1), same) for _ in range(2)]
    return apply(draw(st.sampled_from(_ORDER)), *operands)


# ---- Loop programs

_DIMS: tuple[ExprLike, ...] = (Var("n"), Var("m"), Var("n") * 2, 1, 3, 5, 8)
_COMBINES: tuple[Combine, ...] = ("add", "mul", "max", "min")
Stage = Callable[[st.DrawFn, LoopBuilder, Buffer, Callable[[tuple[Expr, ...]], Buffer]], Buffer]


@st.composite
def tensor_functions(draw: st.DrawFn, name: str = "generated", stages: int = 3) -> TensorFunction:
    """Loop programs of up to ``stages`` blocks: pointwise, shifted, transposed, reduced, scanned.

    They run on any inputs of fitting shapes without reading what was not written or what is out of
    bounds.
    """
    builder = LoopBuilder(name)
    dtype = draw(st.sampled_from((f32, i32)))
    shape = tuple(draw(st.lists(st.sampled_from(_DIMS), min_size=1, max_size=2)))
    current = builder.input(tensor(shape, dtype), "X")
    # Symbols must stand alone in some shape, so that callers can find them.
    builder.input(tensor((Var("n"), Var("m")), dtype), "sizes")
    count = draw(st.integers(1, stages))
    for number in range(count):
        last = number == count - 1

        def target(dims: tuple[Expr, ...], last: bool = last) -> Buffer:
            return builder.output(dims, dtype, "Y") if last else builder.temp(dims, dtype)

        stage = draw(st.sampled_from(_STAGES if current.ndim else (_pointwise,)))
        current = stage(draw, builder, current, target)
    return builder.build()


def _pointwise(
    draw: st.DrawFn,
    builder: LoopBuilder,
    x: Buffer,
    target: Callable[[tuple[Expr, ...]], Buffer],
) -> Buffer:
    hole = Var("hole", x.dtype)
    value = _exact_value(draw, hole)
    return builder.compute(target(x.shape), lambda *at: _put(value, hole, x[at]))


def _exact_value(draw: st.DrawFn, hole: Var) -> Expr:
    """A value that NumPy computes alike on one element and on many."""
    other = _number(draw, hole.dtype)
    choices = (
        hole * other,
        maximum(hole, other) + 1,
        select(hole > 0, hole, other) - hole,
        minimum(apply("abs", hole), other),
        cast(cast(hole, i32), hole.dtype),
    )
    return draw(st.sampled_from(choices))


def _put(value: Expr, hole: Var, x: Expr) -> Expr:
    if value is hole:
        return x
    children = tuple(_put(c, hole, x) for c in value.children)
    return value.with_children(children) if children else value


def _shifted(
    draw: st.DrawFn,
    builder: LoopBuilder,
    x: Buffer,
    target: Callable[[tuple[Expr, ...]], Buffer],
) -> Buffer:
    by = draw(st.integers(-2, 2))

    def value(*at: Expr) -> Expr:
        moved = at[0] + by
        inside = (moved >= 0) & (moved < x.shape[0])
        return guarded(inside, x[(moved, *at[1:])], Const(0, x.dtype))

    return builder.compute(target(x.shape), value)


def _transposed(
    draw: st.DrawFn,
    builder: LoopBuilder,
    x: Buffer,
    target: Callable[[tuple[Expr, ...]], Buffer],
) -> Buffer:
    return builder.compute(target(x.shape[::-1]), lambda *at: x[at[::-1]])


def _reduced(
    draw: st.DrawFn,
    builder: LoopBuilder,
    x: Buffer,
    target: Callable[[tuple[Expr, ...]], Buffer],
) -> Buffer:
    axis = draw(st.integers(0, x.ndim - 1))
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])

    def term(*at: Expr) -> Expr:
        outer, inner = at[:-1], at[-1]
        return x[(*outer[:axis], inner, *outer[axis:])]

    combine = draw(st.sampled_from(_COMBINES))
    return builder.reduce(target(rest), (x.shape[axis],), term, combine)


def _scanned(
    draw: st.DrawFn,
    builder: LoopBuilder,
    x: Buffer,
    target: Callable[[tuple[Expr, ...]], Buffer],
) -> Buffer:
    axis = draw(st.integers(0, x.ndim - 1))
    y = target(x.shape)

    def store(*at: Expr) -> tuple[tuple[ExprLike, ...], Expr]:
        before = (*at[:axis], at[axis] - 1, *at[axis + 1 :])
        return at, x[at] + guarded(at[axis] >= 1, y[before], Const(0, x.dtype))

    return builder.place(y, x.shape, store, ordered=(axis,))


_STAGES: tuple[Stage, ...] = (_pointwise, _shifted, _transposed, _reduced, _scanned)


# ---- Modules


@st.composite
def modules(draw: st.DrawFn, ops: int = 5) -> Module:
    """Modules with a graph function ``main`` of up to ``ops`` operations, constants, and a loop
    program that it calls.
    """
    builder = GraphBuilder("main")
    shape = tuple(draw(st.lists(st.sampled_from(_DIMS), min_size=1, max_size=3)))
    values = [builder.input("x", tensor(shape, f32)), builder.input("y", tensor(shape, f32))]
    builder.input("sizes", tensor((Var("n"), Var("m")), f32))
    if draw(st.booleans()):
        builder.assumes.append(Var("n") >= draw(st.integers(0, 2)))
    small = draw(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=1))
    values.append(_added(values[0], builder.constant("w", np.array(small, np.float32))))
    for _ in range(draw(st.integers(1, ops))):
        values.append(_operation(draw, values))
    results = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))
    main = builder.finish(*results)
    functions: dict[str, GraphFunction | TensorFunction] = {}
    if draw(st.booleans()):
        kernel = draw(tensor_functions("kernel"))
        functions[kernel.name] = kernel
    functions[main.name] = main
    return Module(functions, builder.constants)


def _added(x: Traced, constant: Traced) -> Traced:
    return Add()(x, constant)


def _operation(draw: st.DrawFn, values: list[Traced]) -> Traced:
    x = draw(st.sampled_from(values))
    choice = draw(st.integers(0, 5))
    if choice == 0:
        return draw(st.sampled_from((Neg(), Abs(), Relu())))(x)
    if choice == 1:
        same = [v for v in values if v.type == x.type]
        other = draw(st.sampled_from(same))
        return draw(st.sampled_from((Add(), Sub(), Mul(), Maximum())))(x, other)
    if choice == 2:
        return Mul()(x, x.builder.literal(draw(st.floats(-4, 4, width=32)), x.dtype))
    if choice == 3 and x.ndim:
        return Sum((draw(st.integers(0, x.ndim - 1)),), draw(st.booleans()))(x)
    if choice == 4:
        return Permute(tuple(draw(st.permutations(range(x.ndim)))))(x)
    return Cast(f32)(x)
