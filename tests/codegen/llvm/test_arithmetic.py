"""Scalar functions in machine code give what NumPy gives, special values included."""

import numpy as np
import pytest

from treadle.expr.dtype import (
    DTYPES,
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
    u64,
)
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Var, apply, cast, const
from treadle.ir.tensor import Buffer, For, Load, Store, TensorFunction

FLOATS = [f16, bf16, f32, f64]
INTEGERS = [d for d in DTYPES if d.is_int]
BINARY_FLOAT = [
    "add",
    "sub",
    "mul",
    "div",
    "floordiv",
    "mod",
    "truncdiv",
    "truncmod",
    "min",
    "max",
    "copysign",
]
UNARY_FLOAT = ["neg", "abs", "sign", "floor", "ceil", "trunc", "round", "sqrt"]
PREDICATES = ["isnan", "isinf"]
COMPARE = ["eq", "ne", "lt", "le", "gt", "ge"]
BINARY_INT = [
    "add", "sub", "mul", "floordiv", "mod", "truncdiv", "truncmod", "min", "max",
    "and", "or", "xor", "shl", "shr",
]  # fmt: skip
UNARY_INT = ["neg", "abs", "sign", "invert"]
BINARY_BOOL = ["add", "mul", "and", "or", "xor", "min", "max"]


def special_floats(dtype: DType) -> np.ndarray:
    tiny = np.finfo(np.float16).smallest_subnormal if dtype == f16 else 1e-39
    numbers = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, 3.0, -7.0, 1e-3, 123.75, tiny, -tiny, 60000.0]
    return np.array([*numbers, np.inf, -np.inf, np.nan], np.float64).astype(dtype.numpy)


def special_integers(dtype: DType) -> np.ndarray:
    info = np.iinfo(dtype.numpy)
    numbers = {0, 1, 2, 3, 7, 8, 31, 63, 64, 100, info.max, info.max - 1, info.min, info.min + 1}
    if dtype.kind == "int":
        numbers |= {-1, -2, -3, -7, -8, -100}
    return np.array(sorted(n for n in numbers if info.min <= n <= info.max), dtype.numpy)


def pairs(values: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of values, padded to whole vectors."""
    a, b = (x.ravel() for x in np.meshgrid(values, values))
    pad = -len(a) % lanes
    return np.append(a, values[:1].repeat(pad)), np.append(b, values[:1].repeat(pad))


def functions_kernel(
    name: str, fns: list[str], dtype: DType, result: DType | None, size: int, lanes: int
) -> TensorFunction:
    """One kernel that applies each function to A (and B): row f of Y is that of function f."""
    a, b = Buffer("A", (size,), dtype), Buffer("B", (size,), dtype)
    y = Buffer("Y", (len(fns), size), result or dtype)
    i = Var("i")
    at = i if lanes == 1 else apply("ramp", i * lanes, const(1), dtype=i64.vector(lanes))
    x, z = Load(a, (at,)), Load(b, (at,))
    stores = tuple(
        Store(y, (const(row), at), apply(fn, *(x, z)[: FUNCTIONS[fn].arity]))
        for row, fn in enumerate(fns)
    )
    return TensorFunction(name, (a, b, y), 1, (For(i, const(size // lanes), stores),))


def check(
    run_kernel, fns: list[str], dtype: DType, values: np.ndarray, result: DType | None, lanes: int
) -> None:
    a, b = pairs(values, lanes)
    y = np.zeros((len(fns), len(a)), (result or dtype).numpy)
    run_kernel(functions_kernel("k", fns, dtype, result, len(a), lanes), a, b, y)
    # NumPy knows bfloat16 only in part; it computes as f32 and rounds, as we do.
    operands = [x.astype(np.float32) if dtype == bf16 else x for x in (a, b)]
    for row, fn in enumerate(fns):
        with np.errstate(all="ignore"):
            expected = FUNCTIONS[fn].evaluate(*operands[: FUNCTIONS[fn].arity]).astype(y.dtype)
        same = (y[row] == expected) | ((y[row] != y[row]) & (expected != expected))
        wrong = [(a[k], b[k], y[row, k], expected[k]) for k in np.flatnonzero(~same)[:5]]
        assert not wrong, f"{fn} of {dtype}: (a, b, got, expected) {wrong}"


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_functions_agree_with_numpy(run_kernel, dtype, lanes):
    check(run_kernel, BINARY_FLOAT + UNARY_FLOAT, dtype, special_floats(dtype), None, lanes)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_comparisons_agree_with_numpy(run_kernel, dtype, lanes):
    check(run_kernel, COMPARE + PREDICATES, dtype, special_floats(dtype), boolean, lanes)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_functions_agree_with_numpy_and_never_trap(run_kernel, dtype, lanes):
    check(run_kernel, BINARY_INT + UNARY_INT, dtype, special_integers(dtype), None, lanes)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_comparisons_agree_with_numpy(run_kernel, dtype):
    check(run_kernel, COMPARE, dtype, special_integers(dtype), boolean, 16)


@pytest.mark.parametrize("lanes", [1, 16])
def test_truth_functions_agree_with_numpy(run_kernel, lanes):
    check(
        run_kernel,
        [*BINARY_BOOL, "invert", *COMPARE],
        boolean,
        np.array([False, True]),
        None,
        lanes,
    )


@pytest.mark.parametrize("dtype", [i8, i32, i64, u8, u64], ids=str)
def test_integer_powers_agree_with_numpy(run_kernel, dtype):
    base = special_integers(dtype)
    exponents = np.array([0, 1, 2, 3, 5, 7, 31, 63], dtype.numpy)
    a, b = (x.ravel() for x in np.meshgrid(base, exponents))
    y = np.zeros((1, len(a)), dtype.numpy)
    run_kernel(functions_kernel("k", ["pow"], dtype, None, len(a), 1), a, b, y)
    assert (y[0] == np.power(a, b)).all()


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_nextafter_steps_by_one_unit(run_kernel, dtype):
    check(run_kernel, ["nextafter"], dtype, special_floats(dtype), None, 1)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 8, -1, -2, -3])
def test_constant_divisors_agree_with_numpy(run_kernel, divisor):
    values = np.arange(-20, 21, dtype=np.int64)
    a, y = Buffer("A", (41,), i64), Buffer("Y", (4, 41), i64)
    i = Var("i")
    fns = ["floordiv", "mod", "truncdiv", "truncmod"]
    stores = tuple(Store(y, (const(r), i), apply(fn, a[i], divisor)) for r, fn in enumerate(fns))
    result = np.zeros((4, 41), np.int64)
    run_kernel(TensorFunction("k", (a, y), 1, (For(i, const(41), stores),)), values, result)
    for row, fn in enumerate(fns):
        assert (result[row] == FUNCTIONS[fn].evaluate(values, np.int64(divisor))).all(), fn


def in_range(values: np.ndarray, result: DType) -> np.ndarray:
    """The values that the type can hold."""
    wide = values.astype(np.float64)
    if result.is_int:
        info = np.iinfo(result.numpy)
        keep = np.isfinite(wide) & (np.trunc(wide) >= info.min) & (np.trunc(wide) < float(info.max))
        return values[keep]
    return values


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_casts_agree_with_numpy_where_the_value_fits(run_kernel, source, lanes):
    if source.is_bool:
        values = np.array([False, True])
    else:
        values = special_floats(source) if source.is_float else special_integers(source)
    for result in DTYPES:
        kept = in_range(values, result) if source.is_float else values
        kept = np.resize(kept, -(-len(kept) // lanes) * lanes)
        a, y = Buffer("A", (len(kept),), source), Buffer("Y", (len(kept),), result)
        i = Var("i")
        at = i if lanes == 1 else apply("ramp", i * lanes, const(1), dtype=i64.vector(lanes))
        value = cast(Load(a, (at,)), result if lanes == 1 else result.vector(lanes))
        loop = For(i, const(len(kept) // lanes), (Store(y, (at,), value),))
        got = np.zeros(len(kept), result.numpy)
        run_kernel(TensorFunction("k", (a, y), 1, (loop,)), kept, got)
        with np.errstate(all="ignore"):
            expected = kept.astype(result.numpy)
        assert ((got == expected) | ((got != got) & (expected != expected))).all(), (
            source,
            result,
            kept,
            got,
        )


@pytest.mark.parametrize("fn", ["exp", "tanh", "log", "erf", "sigmoid", "pow", "atan2", "rsqrt"])
@pytest.mark.parametrize("dtype", [f16, f32, f64], ids=str)
def test_math_functions_are_linked_in(run_kernel, fn, dtype):
    a, b = np.linspace(0.1, 2, 32).astype(dtype.numpy), np.linspace(-1, 1.5, 32).astype(dtype.numpy)
    y = np.zeros((1, 32), dtype.numpy)
    run_kernel(functions_kernel("k", [fn], dtype, None, 32, 16), a, b, y)
    expected = FUNCTIONS[fn].evaluate(*(a, b)[: FUNCTIONS[fn].arity])
    np.testing.assert_allclose(y[0], expected, rtol=8 * float(np.finfo(dtype.numpy).eps))
