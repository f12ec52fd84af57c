"""What one core can do at most: multiply-adds on registers, and copying memory."""

import ctypes
import time

import numpy as np

from treadle.codegen.llvm.kernel import kernel_symbol, kernel_text, module_text
from treadle.codegen.llvm.object import compile_here
from treadle.expr.dtype import f32, i64
from treadle.expr.scalar import Const, Expr, Var, apply, const
from treadle.ir.tensor import Allocate, Buffer, For, Load, Stmt, Store, TensorFunction
from treadle.target import Target
from treadle_runtime.loader import load

CHAINS = 12
STEPS = 1_000_000
LEAST_COPIED = 4096


def ramp(start: Expr, lanes: int) -> Expr:
    """The indices of a row of lanes."""
    return apply("ramp", start, const(1), dtype=i64.vector(lanes))


def best_seconds(
    function: TensorFunction, target: Target, *arrays: np.ndarray, rounds: int = 20
) -> float:
    """The best time of a finished loop program without symbols, over several runs."""
    text = module_text([kernel_text(function, target)], "", target)
    symbol = kernel_symbol(function.name)
    code = load(compile_here(text, target), [symbol])
    kinds = [ctypes.c_void_p] * (1 + len(arrays))
    run = ctypes.CFUNCTYPE(None, *kinds)(code[symbol])
    addresses = [array.ctypes.data for array in arrays]
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        run(None, *addresses)
        best = min(best, time.perf_counter() - start)
    return best


def fma_chains(chains: int, lanes: int, steps: int) -> TensorFunction:
    """Independent chains of multiply-adds that touch no memory in the loop."""
    vector = f32.vector(lanes)
    c = Buffer("C", (chains, lanes), f32)
    acc = Buffer("acc", (chains,), vector, "register")
    half = Const(0.5, vector)
    row = [(const(i), ramp(const(0), lanes)) for i in range(chains)]
    body = tuple(Store(acc, (const(i),), acc[const(i)] * half + half) for i in range(chains))
    whole: tuple[Stmt, ...] = (
        Allocate(acc),
        *(Store(acc, (const(i),), Load(c, row[i])) for i in range(chains)),
        For(Var("k"), const(steps), body),
        *(Store(c, row[i], acc[const(i)]) for i in range(chains)),
    )
    return TensorFunction("peak", (c,), 1, whole)


def fma_peak(target: Target) -> float:
    """f32 GFLOP/s of one core of this machine; a multiply-add counts as two."""
    lanes = target.lanes(32)
    chains = fma_chains(CHAINS, lanes, STEPS)
    seconds = best_seconds(chains, target, np.zeros((CHAINS, lanes), np.float32))
    return 2e-9 * CHAINS * lanes * STEPS / seconds


_DOTS = {
    # name: the instruction, its vectors of sums and of factors, operations a lane
    "bf16": ("avx512bf16.dpbf16ps.512", "<16 x float>", "<32 x bfloat>", 4),
    "u8s8": ("avx512.vpdpbusd.512", "<16 x i32>", "<64 x i8>", 8),
}


def dot_chains(kind: str) -> str:
    """LLVM IR of ``peak(context, sums)``: independent chains of dot products on registers."""
    name, sums, factors, _ = _DOTS[kind]
    phis, calls, stores = [], [], []
    for i in range(CHAINS):
        phis.append(f"  %a{i} = phi {sums} [ %z, %entry ], [ %n{i}, %loop ]")
        calls.append(
            f"  %n{i} = call {sums} @llvm.x86.{name}({sums} %a{i}, {factors} %f, {factors} %g)"
        )
        stores.append(f"  %p{i} = getelementptr {sums}, ptr %c, i64 {i}")
        stores.append(f"  store {sums} %n{i}, ptr %p{i}, align 4")
    lines = (
        f"declare {sums} @llvm.x86.{name}({sums}, {factors}, {factors})",
        "define void @peak(ptr %context, ptr %c) {",
        "entry:",
        f"  %z = load {sums}, ptr %c, align 4",
        f"  %f = load {factors}, ptr %c, align 4",
        f"  %q = getelementptr {sums}, ptr %c, i64 1",
        f"  %g = load {factors}, ptr %q, align 4",
        "  br label %loop",
        "loop:",
        "  %k = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *phis,
        *calls,
        "  %next = add i64 %k, 1",
        f"  %more = icmp ult i64 %next, {STEPS}",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *stores,
        "  ret void",
        "}",
    )
    return "\n".join(lines)


def dot_peak(target: Target, kind: str, rounds: int = 20) -> float:
    """Thousand millions of operations a second that one core's dot products do: "bf16", "u8s8".

    Raises:
        InternalError: if the machine has no such instructions.
    """
    code = load(compile_here(dot_chains(kind), target), ["peak"])
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code["peak"])
    sums = np.zeros((CHAINS, 16), np.float32)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        run(None, sums.ctypes.data)
        best = min(best, time.perf_counter() - start)
    return 1e-9 * CHAINS * 16 * _DOTS[kind][3] * STEPS / best


def copy_bandwidth(touched: int, seconds: float = 0.02) -> float:
    """GB/s of one core that copies within so many bytes; read and written bytes count."""
    source = np.ones(max(touched // 2, LEAST_COPIED), np.uint8)
    target = np.zeros_like(source)
    best = float("inf")
    rounds = 0
    end = time.perf_counter() + seconds
    while rounds < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
        rounds += 1
    return 2e-9 * source.size / best
