"""Every intrinsic computes what its description says: in the interpreter, and compiled."""

import ctypes
import re
from dataclasses import replace

import numpy as np
import pytest

from treadle.base.rewrite import replace_fields
from treadle.codegen.llvm.kernel import kernel_symbol, kernel_text, module_text
from treadle.codegen.llvm.object import assembly, compile_here
from treadle.expr.scalar import Var, int_value
from treadle.ir.analysis import accesses
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import Buffer, For, Load, Stmt, Store, TensorFunction
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.intrinsics import TensorIntrin, find_intrinsic, intrinsic_names
from treadle.target import Target
from treadle_runtime.loader import load

NAMES = (*intrinsic_names(), *intrinsic_names(rows=3), "fma_f32_2x16x4", "fma_f32_6x8x2")


def intrinsic(name: str) -> TensorIntrin:
    found = find_intrinsic(name)
    assert found is not None
    return found


def going_on(function: TensorFunction) -> TensorFunction:
    """The function with its result's first contents as one more input."""
    (result,) = function.output_buffers
    start = Buffer(f"{result.name}_start", result.shape, result.dtype)
    places = tuple(Var(f"at_{n}") for n in range(result.ndim))
    body: tuple[Stmt, ...] = (Store(result, places, Load(start, places)),)
    for place, extent in zip(reversed(places), reversed(result.shape), strict=True):
        body = (For(place, extent, body),)
    body = (*body, *function.body)
    return replace_fields(function, params=(*function.input_buffers, start, result), body=body)


def shape_of(buffer: Buffer) -> tuple[int, ...]:
    sizes = [int_value(d) for d in buffer.shape]
    return tuple(n for n in sizes if n is not None)


def random_arrays(function: TensorFunction, seed: int, *, small: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for buffer in function.input_buffers:
        shape, dtype = shape_of(buffer), buffer.dtype
        if dtype.is_float:
            values = rng.integers(-8, 9, shape) if small else rng.standard_normal(shape)
        else:
            low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
            values = rng.integers(low, high, shape, dtype.numpy, endpoint=True)
        arrays.append(values.astype(dtype.numpy))
    return arrays


def compiled(function: TensorFunction, arrays: list[np.ndarray], target: Target) -> np.ndarray:
    text = machine_text(function, target)
    symbol = kernel_symbol(function.name)
    code = load(compile_here(text, target), [symbol], {})
    result = np.zeros(shape_of(function.output_buffers[0]), function.output_buffers[0].dtype.numpy)
    kinds = [ctypes.c_void_p] * (2 + len(arrays))
    call = ctypes.CFUNCTYPE(None, *kinds)(code[symbol])
    call(None, *(a.ctypes.data for a in (*arrays, result)))
    return result


def machine_text(function: TensorFunction, target: Target) -> str:
    return module_text([kernel_text(lower_loops(function), target)], "", target)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(2))
def test_the_implementation_computes_what_the_description_says(name: str, seed: int):
    intrin = intrinsic(name)
    said, done = going_on(intrin.description), going_on(intrin.implementation)
    arrays = random_arrays(said, seed, small=not intrin.exact)
    (expected,), (found,) = run_tensor(said, arrays), run_tensor(done, arrays)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", [n for n in NAMES if not intrinsic(n).exact])
def test_what_sums_in_another_order_stays_near(name: str):
    intrin = intrinsic(name)
    said, done = going_on(intrin.description), going_on(intrin.implementation)
    arrays = random_arrays(said, 5, small=False)
    (expected,), (found,) = run_tensor(said, arrays), run_tensor(done, arrays)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_description_touches_every_element(name: str):
    intrin = intrinsic(name)
    arrays = random_arrays(going_on(intrin.description), 1, small=True)
    used = {a.buffer for a in accesses(intrin.description.body)}
    assert used == set(intrin.description.buffers)
    (before,) = run_tensor(going_on(intrin.description), arrays)
    assert before.shape == shape_of(intrin.output)


PLAIN = replace(Target.parse("x86-64-v3"), name="plain")
OLD = Target.parse("x86-64-v2")


@pytest.mark.parametrize("target", [Target.native(), PLAIN, OLD], ids=lambda t: t.name)
@pytest.mark.parametrize("name", NAMES)
def test_compiled_equals_interpreted(name: str, target: Target):
    if target is not Target.native() and Target.native().arch != "x86_64":
        target = Target.native()
    function = going_on(intrinsic(name).implementation)
    arrays = random_arrays(function, 3, small=True)
    (expected,) = run_tensor(function, arrays)
    np.testing.assert_array_equal(compiled(function, arrays, target), expected)


MNEMONICS = [
    ("fma_f32_6x16x1", "x86-64-v4", r"vfmadd\w+ps\s.*%zmm"),
    ("fma_f32_6x8x1", "x86-64-v3", r"vfmadd\w+ps\s.*%ymm"),
    ("fma_f32_4x4x1", "x86-64-v2", r"\smulps\s.*%xmm"),
    ("fma_f32_4x4x1", "aarch64", r"\sfml[as]\s+v\d+\.4s"),
    ("dot_bf16_4x16x2", "cooperlake", r"vdpbf16ps\s.*%zmm"),
    ("dot_u8i8_4x16x4", "cooperlake", r"vpdpbusd\s.*%zmm"),
    ("dot_i8i8_4x16x4", "cooperlake", r"vpdpbusd\s.*%zmm"),
    ("dot_u8i8_4x8x4", "alderlake", r"vpdpbusd\s.*%ymm"),
    ("dot_u8i8_4x8x4", "x86-64-v3", r"vpmaddwd\s.*%ymm"),
    ("dot_i8i8_4x8x4", "x86-64-v3", r"vpmaddwd\s.*%ymm"),
    ("maddubs_u7i8_4x8x4", "x86-64-v3", r"vpmaddubsw\s.*%ymm"),
    ("maddubs_u7i8_4x4x4", "x86-64-v2", r"\spmaddubsw\s"),
    ("dot_i8i8_4x4x4", "neoverse-n1", r"\ssdot\s"),
    ("xor_popcount_u32_2x4x1", "aarch64", r"\scnt\s+v\d+\.16b"),
    ("interleave_i8_4x16", "x86-64-v4", r"vpunpck[lh]"),
    ("transpose_f32_16x16", "x86-64-v4", r"vshuff\d+x\d"),
    ("transpose_f32_8x8", "x86-64-v3", r"vperm2f128|vinsertf128"),
    ("transpose_f32_4x4", "x86-64-v2", r"unpcklps"),
    ("transpose_f32_4x4", "aarch64", r"\s(zip|trn)[12]\s"),
]


@pytest.mark.parametrize(("name", "target", "mnemonic"), MNEMONICS)
def test_the_target_has_an_instruction_for_it(name: str, target: str, mnemonic: str):
    machine = Target.parse(target)
    text = assembly(machine_text(intrinsic(name).implementation, machine), machine)
    assert re.search(mnemonic, text), text


def test_word_counts_are_one_instruction_where_there_is_one():
    base = Target.parse("cooperlake")
    machine = replace(base, features=base.features | {"avx512vpopcntdq"})
    function = intrinsic("xor_popcount_u32_2x16x1").implementation
    assert "vpopcntd" in assembly(machine_text(function, machine), machine)


@pytest.mark.parametrize("name", ["transpose_f32_16x16", "transpose_f32_8x8"])
def test_a_transpose_gathers_nothing(name: str):
    machine = Target.parse("x86-64-v4")
    text = assembly(machine_text(intrinsic(name).implementation, machine), machine)
    assert "gather" not in text
    assert "vmovss" not in text


def test_names_that_say_no_intrinsic_find_none():
    for name in ("transpose_f32_5x5", "fma_f32_0x16x1", "dot_u8i8_1x16x2", "dot_u8i8_99x16x4", "x"):
        assert find_intrinsic(name) is None
