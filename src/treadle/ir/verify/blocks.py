"""Rules of blocks: the axes step through their domains, each loop serves one axis, or parts of it
serve several.

A binding is quasi-affine when it is a sum of pieces of loop variables, ``(i // lower) % extent``,
times coefficients. Axes are independent when no two of them use overlapping pieces of one loop: ``i
// 4`` and ``i % 4`` are apart, ``i`` and ``2 * i`` are not. Overlap inside one spatial axis (``i *
4 + j`` with ``j`` up to 6) computes elements again, which is harmless; inside a reduction it would
count them twice.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from treadle.expr.bounds import Facts, divisible, interval, prove
from treadle.expr.evaluate import evaluate
from treadle.expr.scalar import Apply, Expr, Var, eq, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import facts_of, loads, paths
from treadle.ir.tensor import ONE, Block, For, IterVar, Stmt, TensorFunction
from treadle.ir.verify.report import refusal

_POINTS = 1 << 18


@dataclass(frozen=True, slots=True)
class Piece:
    """``(loop // lower) % extent``; an extent of ``None`` goes to the loop's end.

    Several loops that were one before they were split count as one: then ``loop`` is their sum, ``i
    * 4 + j``.
    """

    loop: Expr
    lower: Expr
    extent: Expr | None
    coefficient: Expr | None = None


def check_independence(function: TensorFunction) -> None:
    """No two axes of a block move with the same part of a loop, and no reduction step is taken
    twice.
    """
    for block, loops, facts in _blocks(function):
        found = _conflict(block, loops, facts, simpler=True)
        # To simplify may show that parts are apart, or hide it: both forms are the binding.
        if found is not None and _conflict(block, loops, facts, simpler=False) is not None:
            if not _is_box(block, loops):
                raise _dependent(function, *found)
        for axis in block.iters:
            # A guard may take the steps away that overlap.
            plain = axis.kind == "reduce" and block.where is None
            if plain and not _radix(_pieces(axis, loops, facts, simpler=True), loops, facts):
                raise refusal(
                    "E0208",
                    f"the reduction axis '{axis.var.name}' takes a step more than once",
                    function,
                    axis,
                    notes=(f"its binding is {axis.binding}",),
                )


def _conflict(
    block: Block, loops: dict[Var, Expr], facts: Facts, *, simpler: bool
) -> tuple[IterVar, IterVar, Piece] | None:
    """Two axes of a block that move with one part of a loop, and that part."""
    used: list[tuple[Piece, IterVar]] = []
    for axis in block.iters:
        pieces = _pieces(axis, loops, facts, simpler=simpler)
        for piece in pieces:
            other = _overlapping(piece, used, loops, facts)
            if other is not None:
                return axis, other, piece
        used += [(piece, axis) for piece in pieces]
    return None


def _pieces(axis: IterVar, loops: dict[Var, Expr], facts: Facts, *, simpler: bool) -> list[Piece]:
    """The pieces of loops that an axis moves with; all of a loop where its binding is no sum."""
    found: list[Piece] = []
    known = (
        pieces_of(axis.binding, loops, facts)
        if simpler
        else (found if _collect(axis.binding, ONE, loops, found) else None)
    )
    if known is not None:
        return known
    return [Piece(v, ONE, None) for v in variables(axis.binding) if v in loops]


def _dependent(function: TensorFunction, axis: IterVar, other: IterVar, piece: Piece) -> Exception:
    return refusal(
        "E0208",
        f"the axes '{other.var.name}' and '{axis.var.name}' are not independent",
        function,
        axis,
        notes=(f"both move with {piece.loop}",),
        help="bind them to different loops, or to parts such as i // 4 and i % 4",
    )


def check_domains(function: TensorFunction) -> None:
    """A binding stays in its axis's domain, or ``where`` guards it; a reduction's covers it."""
    for block, loops, facts in _blocks(function):
        for axis in block.iters:
            if loads(axis.binding, axis.extent):
                continue
            binding = interval(axis.binding, facts)
            extent = int_value(simplify(axis.extent, facts))
            outside = binding.low is not None and binding.low < 0
            if binding.high is not None and extent is not None:
                outside = outside or binding.high >= extent
            exact = _is_exact(axis.binding, loops)
            if outside and exact and block.where is None:
                raise refusal(
                    "E0207",
                    f"the axis '{axis.var.name}' leaves its domain of {axis.extent}",
                    function,
                    axis,
                    notes=(f"{axis.binding} goes from {binding.low} to {binding.high}",),
                    help=f"guard the block: where({axis.binding} < {axis.extent})",
                )
            short = binding.high is not None and extent is not None and binding.high < extent - 1
            if short and axis.kind == "reduce":
                raise refusal(
                    "E0207",
                    f"the axis '{axis.var.name}' does not cover its domain of {axis.extent}",
                    function,
                    axis,
                    notes=(f"{axis.binding} goes from {binding.low} to {binding.high}",),
                )


def _is_exact(binding: Expr, loops: dict[Var, Expr]) -> bool:
    """Whether the interval of a binding is what its loops take: they are all of known extent."""
    used = variables(binding)
    return all(v in loops and int_value(loops[v]) is not None for v in used)


def _blocks(function: TensorFunction) -> Iterable[tuple[Block, dict[Var, Expr], Facts]]:
    """Every block, with the variables around it that move and what is known of them."""
    base = facts_of(function)
    for stmt, above in paths(function.body):
        if isinstance(stmt, Block):
            loops = dict(_moving(above))
            facts = base
            for var, extent in loops.items():
                facts = facts.with_range(var, extent)
            yield stmt, loops, facts


def _moving(above: tuple[Stmt, ...]) -> Iterable[tuple[Var, Expr]]:
    for stmt in above:
        if isinstance(stmt, For):
            yield stmt.var, stmt.extent
        elif isinstance(stmt, Block):
            yield from ((axis.var, axis.extent) for axis in stmt.iters)


# ---- Pieces


def pieces_of(binding: Expr, loops: dict[Var, Expr], facts: Facts) -> list[Piece] | None:
    """The pieces of loops that a binding sums, or ``None`` if it is no such sum."""
    found: list[Piece] = []
    return found if _collect(simplify(binding, facts), ONE, loops, found) else None


def _collect(x: Expr, factor: Expr, loops: dict[Var, Expr], found: list[Piece]) -> bool:
    if not any(v in loops for v in variables(x)):
        return True
    if isinstance(x, Apply) and x.fn in ("add", "sub"):
        return all(_collect(a, factor, loops, found) for a in x.args)
    if isinstance(x, Apply) and x.fn == "mul":
        a, b = x.args
        if not any(v in loops for v in variables(b)):
            return _collect(a, factor * b, loops, found)
        if not any(v in loops for v in variables(a)):
            return _collect(b, factor * a, loops, found)
        return False
    piece = _piece(x, loops)
    if piece is None:
        return False
    found.append(Piece(piece.loop, piece.lower, piece.extent, factor))
    return True


def _piece(x: Expr, loops: dict[Var, Expr]) -> Piece | None:
    if isinstance(x, Var):
        return Piece(x, ONE, None) if x in loops else None
    if not isinstance(x, Apply) or x.fn not in ("floordiv", "mod"):
        return None
    inner, divisor = _piece(x.args[0], loops), x.args[1]
    if any(v in loops for v in variables(divisor)) or loads(x):
        return None
    inner = inner or Piece(x.args[0], ONE, None)
    if x.fn == "floordiv":
        extent = None if inner.extent is None else inner.extent // divisor
        return Piece(inner.loop, simplify(inner.lower * divisor), extent)
    return Piece(inner.loop, inner.lower, divisor)


def _overlapping(
    piece: Piece, used: list[tuple[Piece, IterVar]], loops: dict[Var, Expr], facts: Facts
) -> IterVar | None:
    for other, axis in used:
        if not _share_loops(piece, other, loops, facts):
            continue
        same = (
            other.loop is piece.loop
            or _is_digit_of(piece, other, facts)
            or _is_digit_of(other, piece, facts)
        )
        if not same or not (_apart(piece, other, facts) or _apart(other, piece, facts)):
            return axis
    return None


def _is_digit_of(low: Piece, high: Piece, facts: Facts) -> bool:
    """Whether ``low`` is a lowest digit of the loop of ``high``, of which only the rest may have
    been written: ``(i * 16 + j) % 3`` is ``(i + j) % 3``.
    """
    return (
        low.extent is not None
        and low.lower is ONE
        and divisible(low.loop - high.loop, low.extent, facts)
    )


def _is_box(block: Block, loops: dict[Var, Expr]) -> bool:
    """Whether the axes, seen by trying all points of the loops, take every combination of values.

    That is what independence means; bindings that were simplified may hide it. ``False`` where the
    loops are not of known extent, or too many.
    """
    extents = [int_value(simplify(e)) for e in loops.values()]
    sizes = [e for e in extents if e is not None]
    if len(sizes) < len(extents) or not 0 < math.prod(sizes) <= _POINTS:
        return False
    if any(v not in loops for v in variables(*_bindings(block))) or loads(*_bindings(block)):
        return False
    points = np.unravel_index(np.arange(math.prod(sizes)), sizes)
    values = dict(zip(loops, points, strict=True))
    columns = [_column(axis.binding, values, points) for axis in block.iters]
    if block.where is not None:
        kept = _column(block.where, values, points) != 0
        columns = [c[kept] for c in columns]
    reached = len(np.unique(np.stack(columns), axis=1).T)
    return reached == math.prod(len(np.unique(c)) for c in columns)


def _bindings(block: Block) -> tuple[Expr, ...]:
    bindings = tuple(axis.binding for axis in block.iters)
    return bindings if block.where is None else (*bindings, block.where)


def _column(x: Expr, values: dict[Var, np.ndarray], points: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.broadcast_to(evaluate(x, values), points[0].shape).astype(np.int64)


def _share_loops(a: Piece, b: Piece, loops: dict[Var, Expr], facts: Facts) -> bool:
    shared = set(variables(a.loop)) & set(variables(b.loop))
    return any(v in loops and not prove(eq(loops[v], 1), facts) for v in shared)


def _apart(low: Piece, high: Piece, facts: Facts) -> bool:
    """Whether ``low`` ends where ``high`` begins, or before. By zero, which a multiple may be,
    nothing is divided.
    """
    if low.extent is None:
        return False
    end = simplify(low.lower * low.extent, facts)
    if end is high.lower or prove(end <= high.lower, facts):
        return True
    return divisible(high.lower, end, facts)


def _radix(pieces: list[Piece], loops: dict[Var, Expr], facts: Facts) -> bool:
    """Whether the pieces of a sum are digits: each coefficient is past what the smaller ones reach.

    Only a sum that plainly overlaps is refused: the coefficients and extents must be known numbers.
    """
    digits: list[tuple[int, int]] = []
    for piece in pieces:
        extent = piece.extent
        if extent is None:
            whole = loops.get(piece.loop) if isinstance(piece.loop, Var) else None
            if whole is None:
                return True
            extent = (whole + (piece.lower - 1)) // piece.lower
        size = int_value(simplify(extent, facts))
        coefficient = None if piece.coefficient is None else int_value(simplify(piece.coefficient))
        if size is None or coefficient is None:
            return True
        if size > 1:
            digits.append((abs(coefficient), size))
    reach = 0
    for coefficient, size in sorted(digits):
        if coefficient <= reach:
            return False
        reach += coefficient * (size - 1)
    return True
