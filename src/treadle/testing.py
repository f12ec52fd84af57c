"""For tests of Treadle and of what is built on it: programs from text, comparison, and generated
programs.
"""

import dataclasses
import difflib
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from treadle.base.cache import NO_CACHE
from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.driver.build import build
from treadle.driver.executable import Executable
from treadle.driver.options import Options
from treadle.driver.pipelines import graph_pipeline
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
    substitute,
    variables,
)
from treadle.expr.simplify import simplify
from treadle.ir.analysis import shape_symbols, type_exprs
from treadle.ir.graph import GraphFunction
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.interpret.graph import specialize
from treadle.ir.loop_builder import Combine, LoopBuilder, guarded
from treadle.ir.module import Function, Module
from treadle.ir.op import Example, Op
from treadle.ir.parser import parse
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import ShapeType, TensorType, tensor
from treadle.ops import (
    OPS,
    OPS_BY_NAME,
    Abs,
    Add,
    Cast,
    Maximum,
    Mul,
    Neg,
    Permute,
    Relu,
    Sub,
    Sum,
)
from treadle.target import Target

__all__ = [
    "all_samples",
    "assert_close",
    "assert_same_ir",
    "compiled_here",
    "constant_dims",
    "expressions",
    "ir",
    "modules",
    "random_inputs",
    "reference_results",
    "sample_arrays",
    "sample_name",
    "sample_sizes",
    "tensor_functions",
]

Arrays = tuple[np.ndarray, ...]
Sample = tuple[Op, tuple[Example, ...]]


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


# Relative and absolute, by dtype: a few units in the last place of what is computed.
_TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-10}


def assert_close(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Fail unless two lists of arrays agree: in shapes and dtypes, floats up to rounding, the rest
    exactly.

    Raises:
        AssertionError: if they differ.
    """
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        tolerance = _TOLERANCE.get(b.dtype.name)
        if tolerance is None:
            np.testing.assert_array_equal(a, b)
        else:
            wide = (x.astype(np.float64) for x in (a, b))
            np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


# ---- Machine code


def compiled_here(module: Module, target: str = "native", threads: int = 1) -> Executable:
    """The entry of a graph module, compiled in this process, with nothing read from or left on
    disk.

    Raises:
        TreadleError: what compiling refuses.
    """
    options = Options(
        Target.parse(target), "default", threads, workers=0, cache=NO_CACHE, dump=None
    )
    graph = graph_pipeline().run(module)
    return Executable(graph, build(graph, options), threads=threads)


# ---- Samples of operations


def all_samples() -> Iterator[Sample]:
    """Every sample of every operation of the catalogue."""
    for cls in OPS:
        yield from cls.samples()


def sample_name(sample: Sample) -> str:
    """A readable name: the operation, its fields, the types of its operands."""
    op, examples = sample
    fields = ",".join(str(getattr(op, f.name)) for f in dataclasses.fields(op))  # type: ignore[arg-type]
    types = ",".join(str(e.type).removeprefix("Tensor") for e in examples)
    return f"{op.op_name()}({fields})-{types}"


def sample_sizes(sample: Sample, base: int = 3) -> dict[Var, int]:
    """Small sizes, not all equal, for the symbols of a sample's types and fields."""
    op, examples = sample
    found = set(variables(*(d for e in examples for d in e.type.dims)))
    pending = [getattr(op, f.name) for f in dataclasses.fields(op)]  # type: ignore[arg-type]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Expr):
            found.update(variables(value))
    return {v: base + ord(v.name[0]) % 3 for v in found}


def sample_arrays(sample: Sample, sizes: Mapping[Var, int]) -> Arrays:
    """Operands for a sample, drawn from the ranges that it gives, always the same."""
    op, examples = sample
    random = np.random.default_rng(zlib.crc32(repr((op, examples)).encode()))
    return tuple(_sample_array(random, e, constant_dims(e.type.dims, sizes)) for e in examples)


def _sample_array(random: np.random.Generator, e: Example, shape: tuple[int, ...]) -> np.ndarray:
    dtype = e.type.dtype
    if dtype.is_float:
        return random.uniform(e.low, e.high, shape).astype(dtype.numpy)
    return np.asarray(random.integers(int(e.low), int(e.high), shape)).astype(dtype.numpy)


def constant_dims(dims: Sequence[Expr], sizes: Mapping[Var, int]) -> tuple[int, ...]:
    """Dimensions with symbols exchanged for their sizes."""
    known = {v: Const(n, v.dtype) for v, n in sizes.items()}
    fixed = [simplify(substitute(d, known)) for d in dims]
    return tuple(int(d.value) for d in fixed if isinstance(d, Const))


def reference_results(op: Op, arrays: Sequence[np.ndarray], sizes: Mapping[Var, int]) -> Arrays:
    """What an operation means on arrays, by its own NumPy definition."""
    with np.errstate(all="ignore"):
        found = specialize(op, sizes).reference(*arrays)
    return tuple(np.asarray(y) for y in (found if isinstance(found, tuple) else (found,)))


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
    main: GraphFunction = builder.finish(*results)
    if draw(st.booleans()):
        names = st.lists(st.text(), min_size=len(results), max_size=len(results), unique=True)
        main = replace_fields(main, outputs=tuple(draw(names)))
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
