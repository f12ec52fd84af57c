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
COPIED_BYTES = 256 * 2**20


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


def copy_bandwidth() -> float:
    """GB/s of one core that copies far more than the caches hold; read and written bytes count."""
    source = np.ones(COPIED_BYTES, np.uint8)
    target = np.zeros_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2e-9 * COPIED_BYTES / best
