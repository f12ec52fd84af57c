"""Find the values of symbols from the shapes of arrays."""

from collections.abc import Sequence

from treadle.base.errors import RuntimeFault
from treadle.expr.scalar import Const, Expr, Var, int_value, substitute, variables


def value_of(x: Expr, symbols: dict[Var, int]) -> int | None:
    """The integer that ``x`` is; ``None`` while a symbol in it is unknown."""
    known = {v: Const(symbols[v], v.dtype) for v in variables(x) if v in symbols}
    return int_value(substitute(x, known))


def solve(
    pairs: Sequence[tuple[Expr, int]], symbols: dict[Var, int], what: str, where: Sequence[str]
) -> None:
    """Add to ``symbols`` what makes each expression equal to its integer, and check all of them.

    An expression may give the value of one symbol that it is linear in. ``what`` names the function
    for the message, and ``where`` each pair.

    Raises:
        RuntimeFault: E0762 when a dimension is another than the program says, E0763 when a symbol
            cannot be found.
    """
    waiting = list(zip(pairs, where, strict=True))
    while waiting:
        left = [(p, w) for p, w in waiting if not _settle(*p, symbols, what, w)]
        if len(left) == len(waiting):
            (x, _), place = left[0]
            raise RuntimeFault(
                "E0763",
                f"{what}: the symbols of {place}, {x}, cannot be found from the shapes",
                help="pass the symbol by name",
            )
        waiting = left


def _settle(x: Expr, actual: int, symbols: dict[Var, int], what: str, where: str) -> bool:
    """Check one dimension, or find its one unknown; false when it has to wait for others."""
    unknown = [v for v in variables(x) if v not in symbols]
    if len(unknown) > 1:
        return False
    if unknown:
        found = _linear_root(x, unknown[0], actual, symbols)
        if found is None:
            return False
        symbols[unknown[0]] = found
    expected = value_of(x, symbols)
    if expected != actual:
        named = str(x) if expected is None or str(x) == str(expected) else f"{x} = {expected}"
        raise RuntimeFault("E0762", f"{what}: {where} is {actual}, and the program says {named}")
    return True


def _linear_root(x: Expr, symbol: Var, actual: int, symbols: dict[Var, int]) -> int | None:
    at = [value_of(x, symbols | {symbol: point}) for point in (0, 1, 2)]
    if at[0] is None or at[1] is None or at[2] is None:
        return None
    slope = at[1] - at[0]
    if slope == 0 or at[2] - at[1] != slope:
        return None
    return (actual - at[0]) // slope
