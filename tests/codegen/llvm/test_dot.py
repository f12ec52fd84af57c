"""Dot products, shuffles, counts of bits: the same on every kind of machine as interpreted."""

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.errors import CodegenError, ParseError
from treadle.codegen.llvm.kernel import kernel_symbol, kernel_text, module_text
from treadle.codegen.llvm.object import compile_here
from treadle.ir.interpret import run_tensor
from treadle.ir.parser import parse_function
from treadle.ir.tensor import TensorFunction
from treadle.target import Target
from treadle_runtime.loader import load

NATIVE = Target.native()
# What this machine has, and the same without its newest instructions.
LESS = ("avx512bf16", "avx512vnni", "avxvnni", "avx512vpopcntdq", "avx512bitalg")
TARGETS = (
    (NATIVE, replace(NATIVE, features=NATIVE.features - set(LESS)), Target.parse("x86-64-v2"))
    if NATIVE.arch == "x86_64"
    else (NATIVE,)
)


def program(line: str, *params: str) -> TensorFunction:
    text = f"@tensor.function\ndef f({', '.join(params)}):\n    {line}\n"
    found = parse_function(text)
    assert isinstance(found, TensorFunction)
    assert str(parse_function(str(found))) == str(found)
    return found


def compiled(f: TensorFunction, arrays: Sequence[np.ndarray], target: Target) -> np.ndarray:
    text = module_text([kernel_text(f, target)], "", target)
    symbol = kernel_symbol(f.name)
    code = load(compile_here(text, target), [symbol], {})
    out = f.output_buffers[0]
    result = np.zeros(tuple(int(str(d)) for d in out.shape), out.dtype.numpy)
    kinds = [ctypes.c_void_p] * (2 + len(arrays))
    call = ctypes.CFUNCTYPE(None, *kinds)(code[symbol])
    call(None, *(a.ctypes.data for a in (*arrays, result)))
    return result


def check(f: TensorFunction, *arrays: np.ndarray) -> np.ndarray:
    (expected,) = run_tensor(f, arrays)
    for target in TARGETS:
        np.testing.assert_array_equal(compiled(f, arrays, target), expected)
    return expected


def ramp(lanes: int) -> str:
    return f"ramp(0, 1, i64x{lanes})"


def dots(total: str, left: str, right: str, group: int, lanes: int = 8) -> TensorFunction:
    wide = group * lanes
    return program(
        f"Y[{ramp(lanes)}] = dot(C[{ramp(lanes)}], A[{ramp(wide)}], B[{ramp(wide)}])",
        f"C: Buffer[({lanes},), {total}]",
        f"A: Buffer[({wide},), {left}]",
        f"B: Buffer[({wide},), {right}]",
        f"Y: Output[({lanes},), {total}]",
    )


def integers(dtype: str, count: int, seed: int) -> np.ndarray:
    kind = np.dtype({"u": "uint", "i": "int"}[dtype[0]] + dtype[1:])
    info = np.iinfo(kind)
    rng = np.random.default_rng(seed)
    values = rng.integers(info.min, info.max, count, kind, endpoint=True)
    values[: count // 4] = info.min
    values[count // 4 : count // 2] = info.max
    return values


@pytest.mark.parametrize("lanes", [4, 8, 16, 6])
@pytest.mark.parametrize(
    ("left", "right"), [("u8", "i8"), ("i8", "u8"), ("i8", "i8"), ("u8", "u8")]
)
def test_quads_of_bytes_are_summed_exactly(left: str, right: str, lanes: int):
    f = dots("i32", left, right, 4, lanes)
    arrays = [integers("i32", lanes, 1), *(integers(x, 4 * lanes, 2) for x in (left, right))]
    found = check(f, *arrays)
    c, a, b = (x.astype(np.int64) for x in arrays)
    wide = c + (a * b).reshape(lanes, 4).sum(axis=1)
    np.testing.assert_array_equal(found, wide.astype(np.int32))


@pytest.mark.parametrize("lanes", [4, 8, 16, 3])
def test_pairs_of_words_are_summed_and_wrap(lanes: int):
    f = dots("i32", "i16", "i16", 2, lanes)
    arrays = [integers("i32", lanes, 1), *(integers("i16", 2 * lanes, n) for n in (2, 3))]
    check(f, *arrays)


def floats(seed: int, count: int, scale: float) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count) * scale


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.sampled_from([0, 5, -63, -120, 60, 100]))
def test_pairs_of_bf16_are_summed_as_the_machine_does(seed: int, power: int):
    scale = 2.0**power
    f = dots("f32", "bf16", "bf16", 2, 16)
    total = floats(seed, 16, scale).astype(np.float32)
    a = floats(seed + 1, 32, scale).astype(ml_dtypes.bfloat16)
    b = floats(seed + 2, 32, 1.0).astype(ml_dtypes.bfloat16)
    arrays = (total, a, b)
    (expected,) = run_tensor(f, arrays)
    for target in TARGETS:
        if target.has_fma or power == 0:
            np.testing.assert_array_equal(compiled(f, arrays, target), expected)


@settings(max_examples=60, deadline=None)
@given(
    a=st.floats(-100, 100, width=16),
    b=st.floats(-100, 100, width=16),
    c=st.floats(-1e4, 1e4, width=32),
)
def test_a_product_of_bf16_and_a_sum_are_rounded_once(a: float, b: float, c: float):
    x, y = (ml_dtypes.bfloat16(v) for v in (a, b))
    f = dots("f32", "bf16", "bf16", 2, 4)
    left = np.array([x, 0] * 4, ml_dtypes.bfloat16)
    right = np.array([y, 0] * 4, ml_dtypes.bfloat16)
    (found,) = run_tensor(f, [np.full(4, c, np.float32), left, right])
    tiny = np.finfo(np.float32).tiny
    kept = [0.0 if abs(float(v)) < tiny else float(v) for v in (x, y, np.float32(c))]
    exact = Fraction(kept[0]) * Fraction(kept[1]) + Fraction(kept[2])
    near = np.float32(float(exact))
    around = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    errors = [abs(Fraction(float(v)) - exact) for v in around]
    if abs(near) >= tiny:
        assert abs(Fraction(float(found[0])) - exact) == min(errors)


def test_saturated_pairs_stop_at_sixteen_bits():
    f = program(
        f"Y[{ramp(8)}] = maddubs(A[{ramp(16)}], B[{ramp(16)}])",
        "A: Buffer[(16,), u8]",
        "B: Buffer[(16,), i8]",
        "Y: Output[(8,), i16]",
    )
    a, b = np.full(16, 255, np.uint8), np.repeat(np.array([127, -128], np.int8), 8)
    assert set(check(f, a, b)) == {32767, -32768}


@pytest.mark.parametrize("dtype", ["u32", "i32", "u64", "u8", "i16"])
def test_bits_are_counted(dtype: str):
    f = program(
        f"Y[{ramp(8)}] = popcount(X[{ramp(8)}])",
        f"X: Buffer[(8,), {dtype}]",
        f"Y: Output[(8,), {dtype}]",
    )
    x = integers(dtype, 8, 4)
    found = check(f, x)
    width = x.dtype.itemsize * 8
    assert found.tolist() == [bin(int(v) % (1 << width)).count("1") for v in x]


def test_lanes_of_two_vectors_come_in_any_order_and_number():
    f = program(
        f"Y[{ramp(6)}] = shuffle(A[{ramp(4)}], B[{ramp(4)}], 7, 0, 0, 4, 3, 1)",
        "A: Buffer[(4,), f32]",
        "B: Buffer[(4,), f32]",
        "Y: Output[(6,), f32]",
    )
    a, b = np.arange(4, dtype=np.float32), np.arange(4, 8, dtype=np.float32)
    assert check(f, a, b).tolist() == [7, 0, 0, 4, 3, 1]


def test_bits_of_a_vector_are_those_of_a_word_and_back():
    f = program(
        f"Y[{ramp(16)}] = bitcast(broadcast(bitcast(A[{ramp(4)}], u32), u32x4), u8x16)",
        "A: Buffer[(4,), u8]",
        "Y: Output[(16,), u8]",
    )
    assert check(f, np.array([1, 2, 3, 4], np.uint8)).tolist() == [1, 2, 3, 4] * 4


@pytest.mark.parametrize(
    "line",
    [
        f"Y[{ramp(4)}] = shuffle(X[{ramp(4)}], Z[{ramp(4)}], 0, 1, 2, 3)",
        f"Y[{ramp(4)}] = dot(X[{ramp(4)}], X[{ramp(4)}], X[{ramp(4)}])",
        f"Y[{ramp(4)}] = maddubs(X[{ramp(4)}], X[{ramp(4)}])",
    ],
)
def test_operands_that_do_not_fit_are_refused(line: str):
    with pytest.raises(ParseError, match="E0005"):
        program(line, "X: Buffer[(4,), f32]", "Z: Buffer[(4,), i32]", "Y: Output[(4,), f32]")


def test_a_dot_product_of_other_types_has_no_machine_code():
    with pytest.raises(CodegenError, match="E0501"):
        kernel_text(dots("f32", "f32", "f32", 2), NATIVE)
