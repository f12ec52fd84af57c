"""Kernels compile for machines other than this one, and run there."""

import shutil
import struct
import subprocess

import numpy as np
import pytest

from treadle.codegen.llvm.kernel import kernel_text, module_text
from treadle.codegen.llvm.object import compile_here
from treadle.expr.dtype import DType, bf16, f16, f32, i64
from treadle.expr.scalar import Expr, Var, apply, cast, const, eq, select
from treadle.ir.tensor import Allocate, Buffer, For, Load, Store, TensorFunction
from treadle.target import Target, target_names

i, k = Var("i"), Var("k")
MACHINES = {"x86_64": 62, "aarch64": 183}


def ramp(start: Expr, lanes: int = 8) -> Expr:
    return apply("ramp", start, const(1), dtype=i64.vector(lanes))


def tile() -> TensorFunction:
    """Y = exp(A @ B) of a 4 x 8 tile, summed over 16."""
    a, b, y = Buffer("A", (4, 16), f32), Buffer("B", (16, 8), f32), Buffer("Y", (4, 8), f32)
    acc = Buffer("acc", (4,), f32.vector(8), "register")
    rows = [const(r) for r in range(4)]
    zero = apply("broadcast", const(0.0), dtype=f32.vector(8))
    right = Load(b, (k, ramp(const(0))))
    products = tuple(
        Store(acc, (r,), apply("broadcast", a[r, k], dtype=f32.vector(8)) * right + acc[r])
        for r in rows
    )
    body = (
        Allocate(acc),
        *(Store(acc, (r,), zero) for r in rows),
        For(k, const(16), products),
        *(Store(y, (r, ramp(const(0))), apply("exp", acc[r])) for r in rows),
    )
    return TensorFunction("tile", (a, b, y), 1, body)


def halves(dtype: DType) -> TensorFunction:
    """Y = maximum(X * 3 + X, floor(X)), with a masked tail and an integer division."""
    x, y = Buffer("X", (21,), dtype), Buffer("Y", (21,), dtype)
    at = ramp(i * 8)
    mask = apply("lt", at, apply("broadcast", const(21), dtype=i64.vector(8)))
    value = Load(x, (at,), mask)
    value = apply("max", value * 3.0 + value, apply("floor", value))
    odd = eq(i % 2, 1)
    value = select(
        odd, value, value + cast(apply("broadcast", i // 3, dtype=i64.vector(8)), value.dtype)
    )
    loop = For(i, const(3), (Store(y, (at,), value, mask),))
    return TensorFunction(f"halves_{dtype}", (x, y), 1, (loop,))


FUNCTIONS = [tile(), halves(f16), halves(bf16), halves(f32)]


@pytest.mark.parametrize("name", target_names())
def test_kernels_compile_for_every_target_without_a_support_library(name: str):
    target = Target.parse(name)
    text = module_text([kernel_text(f, target) for f in FUNCTIONS], "", target)
    code = compile_here(text, target)
    assert struct.unpack_from("<H", code, 18)[0] == MACHINES[target.arch]
    for call in (b"__truncsfhf2", b"__extendhfsf2", b"__truncsfbf2", b"expf", b"fmaf", b"fmodf"):
        assert call not in code


def data(name: str, array: np.ndarray) -> str:
    body = "".join(f"\\{byte:02X}" for byte in array.tobytes())
    return f'@{name} = internal global [{array.nbytes} x i8] c"{body}", align 64'


# "mov x8, x3; svc 0; ret" as numbers, for LLVM has no assembler for other machines here: a system
# call as a function of up to three arguments and the call's number.
SYSCALL = """
@syscall = internal constant [3 x i32] [i32 -1442642968, i32 -738197503, i32 -698416192],
  section ".text.sys,\\22ax\\22,@progbits //"
"""


def program(calls: list[str], outputs: list[tuple[str, int]]) -> str:
    """A program without a C library: it calls kernels, writes their outputs, and ends."""
    lines = [SYSCALL, "define void @_start() noreturn {"]
    lines.extend(f"  call void {call}" for call in calls)
    lines.extend(
        f"  call i64 @syscall(i64 1, ptr @{name}, i64 {size}, i64 64)" for name, size in outputs
    )
    lines.append("  call i64 @syscall(i64 0, ptr null, i64 0, i64 93)")
    return "\n".join((*lines, "  unreachable", "}"))


def expected_halves(x: np.ndarray) -> np.ndarray:
    """In f32, rounded after each operation."""

    def rounded(value: np.ndarray) -> np.ndarray:
        return value.astype(x.dtype).astype(np.float32)

    wide = x.astype(np.float32)
    value = np.maximum(rounded(rounded(wide * 3) + wide), np.floor(wide))
    lane = np.arange(21) // 8
    return np.where(lane % 2 == 1, value, rounded(value + lane // 3)).astype(x.dtype)


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing; install the Debian package {package}")
    return found


@pytest.mark.slow
def test_aarch64_code_computes_the_same(tmp_path):
    qemu, ld = (
        tool("qemu-aarch64", "qemu-user"),
        tool("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu"),
    )
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 16), (16, 8)))
    sources = [rng.standard_normal(21).astype(f.params[0].dtype.numpy) * 4 for f in FUNCTIONS[1:]]
    sources = [
        x.astype(f.params[0].dtype.numpy) for x, f in zip(sources, FUNCTIONS[1:], strict=True)
    ]
    globals_ = [data("A", a), data("B", b), data("Y", np.zeros((4, 8), np.float32))]
    calls, outputs = ["@tile.kernel(ptr null, ptr @A, ptr @B, ptr @Y)"], [("Y", 4 * 8 * 4)]
    for number, (x, function) in enumerate(zip(sources, FUNCTIONS[1:], strict=True)):
        globals_ += [data(f"X{number}", x), data(f"Y{number}", np.zeros_like(x))]
        calls.append(f"@{function.name}.kernel(ptr null, ptr @X{number}, ptr @Y{number})")
        outputs.append((f"Y{number}", x.nbytes))
    target = Target.parse("aarch64")
    kernels = [kernel_text(f, target) for f in FUNCTIONS]
    text = module_text(kernels, "\n".join((*globals_, program(calls, outputs))), target)
    (tmp_path / "kernels.o").write_bytes(compile_here(text, target))
    subprocess.run([ld, "-o", "run", "kernels.o"], cwd=tmp_path, check=True)
    out = subprocess.run(
        [qemu, "./run"], cwd=tmp_path, check=True, capture_output=True, timeout=60
    ).stdout
    np.testing.assert_allclose(
        np.frombuffer(out[:128], np.float32), np.exp(a @ b).ravel(), rtol=1e-4
    )
    start = 128
    for x in sources:
        got = np.frombuffer(out[start : start + x.nbytes], x.dtype)
        start += x.nbytes
        if x.dtype == np.float32:
            np.testing.assert_allclose(got, expected_halves(x), rtol=1e-6)
        else:
            np.testing.assert_array_equal(got, expected_halves(x))
