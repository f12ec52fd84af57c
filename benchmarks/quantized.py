"""Products with packed weights: bytes of weights per second, against what copying memory reaches.

A product of one row reads its weight once, so nothing is faster than memory; packed weights are
fewer bytes. ``int4 / 1`` and ``int4 / 2`` round the rows to one or two bytes and multiply in
integers. Times are minima of the thread's CPU clock, on one thread.

    python benchmarks/quantized.py [--rows 1 4 16 128] [--seconds 0.3] [--sizes 768x768 2048x5632]
"""

import argparse
import time
from collections.abc import Callable

import ml_dtypes
import numpy as np

import treadle
from treadle.expr.dtype import bf16, f32
from treadle.expr.scalar import Var
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Module
from treadle.ir.types import tensor
from treadle.language.decoding import decoded
from treadle.language.integer import integer_product
from treadle.language.layers import narrow_product
from treadle.language.quantize import quantized
from treadle.ops import Cast, Matmul

KINDS = ("f32", "bf16", "int8", "int4", "int8 / 2", "int4 / 2", "int4 / 1")
SIZES = ("768x768", "768x2048", "768x3072", "768x32000", "2048x5632")


def module(kind: str, inputs: int, outputs: int) -> tuple[Module, int]:
    """The product of any number of rows with a random weight, and the weight's bytes."""
    weight = np.random.default_rng(0).standard_normal((outputs, inputs), np.float32)
    b = GraphBuilder("main")
    x = b.input("x", tensor([Var("t"), inputs], f32))
    y, size = product(b, x, weight, kind)
    return Module({**b.functions, "main": b.finish(y)}, b.constants), size


def product(b: GraphBuilder, x: Traced, weight: np.ndarray, kind: str) -> tuple[Traced, int]:
    """Add the product with a weight that is kept as ``kind``."""
    if kind == "f32":
        return Matmul()(x, b.constant("weight", weight.T)), weight.nbytes
    if kind == "bf16":
        narrow = weight.astype(ml_dtypes.bfloat16)
        return narrow_product(b, Cast(bf16)(x), b.constant("weight", narrow)), narrow.nbytes
    name, _, digits = kind.partition(" / ")
    packed = quantized(weight, "int8" if name == "int8" else "int4")
    if digits:
        return integer_product(b, x, packed, digits=int(digits)), packed.nbytes
    return Matmul()(x, decoded(b, packed)), packed.nbytes


def least_seconds(run: Callable[[], object], seconds: float) -> float:
    """The least CPU time of one call within so much of it."""
    best, start = float("inf"), time.thread_time()
    while time.thread_time() - start < seconds:
        before = time.thread_time_ns()
        run()
        best = min(best, (time.thread_time_ns() - before) * 1e-9)
    return best


def copy_bandwidth() -> float:
    """Bytes per second that copying 64 MiB reads and writes."""
    source = np.ones(1 << 26, np.uint8)
    target = np.zeros_like(source)
    return 2 * source.nbytes / least_seconds(lambda: np.copyto(target, source), 0.3)


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 4, 16, 128])
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=0.2)
    args = parser.parse_args()
    copy = copy_bandwidth()
    print(f"copy: {copy * 1e-9:.1f} GB/s")
    print(f"{'inputs x outputs':18}{'rows':>5}  {'weight':9}{'µs':>9}{'GB/s':>8}{'of copy':>9}")
    for size in args.sizes:
        inputs, outputs = map(int, size.split("x"))
        for kind in args.kinds:
            program, weight_bytes = module(kind, inputs, outputs)
            exe = treadle.compile(program, threads=1)
            for rows in args.rows:
                x = np.ones((rows, inputs), np.float32)
                spent = least_seconds(lambda x=x, exe=exe: exe(x), args.seconds)
                rate = weight_bytes / spent
                print(
                    f"{size:18}{rows:5}  {kind:9}{spent * 1e6:9.1f}{rate * 1e-9:8.1f}"
                    f"{rate / copy:9.0%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
