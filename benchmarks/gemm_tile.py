"""One register tile of a matrix product: how near finished loops, translated one to one, come to
the FMA peak.

The loop program is what a schedule makes of a product of 6 rows, with every multiply-accumulate
loading its own two operands. The peak is measured in the same run by independent multiply-adds on
registers.
"""

import numpy as np
from common.peaks import best_seconds, fma_peak, ramp

from treadle.expr.dtype import f32
from treadle.expr.scalar import Expr, Var, apply, const
from treadle.ir.tensor import Allocate, Buffer, For, Load, Stmt, Store, TensorFunction
from treadle.target import Target

DEPTH = 512
REPEATS = 2000


def tile(rows: int, vectors: int, lanes: int) -> TensorFunction:
    """``C += A @ B`` for a tile of rows x (vectors * lanes), repeated inside of the function."""
    width, vector = vectors * lanes, f32.vector(lanes)
    a = Buffer("A", (rows, DEPTH), f32)
    b = Buffer("B", (DEPTH, width), f32)
    c = Buffer("C", (rows, width), f32)
    acc = Buffer("acc", (rows, vectors), vector, "register")
    step = Var("k")
    points = [(const(r), const(v)) for r in range(rows) for v in range(vectors)]

    def cells(row: Expr, column: Expr) -> tuple[Expr, Expr]:
        return row, ramp(column * lanes, lanes)

    def product(row: Expr, column: Expr) -> Stmt:
        left = apply("broadcast", a[row, step], dtype=vector)
        right = Load(b, (step, ramp(column * lanes, lanes)))
        return Store(acc, (row, column), left * right + acc[row, column])

    body: tuple[Stmt, ...] = (
        Allocate(acc),
        *(Store(acc, p, Load(c, cells(*p))) for p in points),
        For(step, const(DEPTH), tuple(product(*p) for p in points)),
        *(Store(c, cells(*p), acc[p]) for p in points),
    )
    repeat = For(Var("repeat"), const(REPEATS), body)
    return TensorFunction("tile", (a, b, c), 1, (repeat,))


def main() -> None:
    """Measure both and print the ratio."""
    target = Target.native()
    lanes = target.lanes(32)
    rows, vectors = (6, 4) if target.vector_registers == 32 else (6, 2)
    width = vectors * lanes
    random = np.random.default_rng(0)
    a = random.standard_normal((rows, DEPTH), np.float32)
    b = random.standard_normal((DEPTH, width), np.float32)
    c = np.zeros((rows, width), np.float32)
    spent = best_seconds(tile(rows, vectors, lanes), target, a, b, c)
    rate = 2e-9 * rows * width * DEPTH * REPEATS / spent
    top = fma_peak(target)
    print(f"tile {rows}x{width}: {rate:.0f} GFLOP/s, FMA peak {top:.0f} GFLOP/s, {rate / top:.1%}")


if __name__ == "__main__":
    main()
