"""Maps of indices as data: ``lambda k, j: (j // 64, k, j % 64)``."""

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from treadle.expr.functions import FUNCTIONS, OPERATORS
from treadle.expr.scalar import Apply, Const, Expr, Var, apply, as_expr

_OPERATOR: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
}


@dataclass(frozen=True)
class IndexMap:
    """Where an element goes: ``results`` are expressions of old indices, named by ``params``."""

    params: tuple[str, ...]
    results: tuple[Expr, ...]

    @property
    def variables(self) -> tuple[Var, ...]:
        """The old indices."""
        return tuple(Var(p) for p in self.params)

    def __str__(self) -> str:
        inner = ", ".join(map(str, self.results))
        tail = "," if len(self.results) == 1 else ""
        return f"lambda {', '.join(self.params)}: ({inner}{tail})"

    def pack(
        self,
        array: np.ndarray,
        shape: tuple[int, ...],
        pad: float = 0,
        symbols: Mapping[str, int] = {},
    ) -> np.ndarray:
        """The elements of ``array`` in their new places in an array of ``shape``; ``pad`` where
        none goes. ``symbols`` are those that the map mentions.
        """
        blocked = self._blocked(array, shape, pad)
        if blocked is not None:
            return blocked
        grid = np.meshgrid(*(np.arange(n) for n in array.shape), indexing="ij")
        known = {name: np.asarray(value) for name, value in symbols.items()}
        places = known | dict(zip(self.params, grid, strict=True))
        packed = np.full(shape, pad, array.dtype)
        packed[tuple(_evaluate(e, places) for e in self.results)] = array
        return packed

    def _blocked(self, array: np.ndarray, shape: tuple[int, ...], pad: float) -> np.ndarray | None:
        """The same for a map that only splits old indices (``i // c`` and ``i % c``), permutes the
        parts, and joins neighbours again (``x * c + i % c``).
        """
        single = [part for e in self.results for part in _joined(e)]
        parts: list[tuple[str, int, int]] = [_part(e) or ("", 0, 0) for e in single]
        widths = {name: c for name, c, _ in parts if c}
        wanted = [(p, widths[p], k) for p in self.params if p in widths for k in (0, 1)]
        wanted += [(p, 0, 0) for p in self.params if p not in widths]
        if sorted(parts) != sorted(wanted):
            return None
        padding = [
            (0, -size % widths.get(p, 1)) for p, size in zip(self.params, array.shape, strict=True)
        ]
        if any(after for _, after in padding):
            array = np.pad(array, padding, constant_values=pad)
        split: list[int] = []
        axes: dict[tuple[str, int, int], int] = {}
        for p, size in zip(self.params, array.shape, strict=True):
            width = widths.get(p, 0)
            for k, extent in enumerate((size // width, width) if width else (size,)):
                axes[p, width, k] = len(split)
                split.append(extent)
        packed = array.reshape(split).transpose([axes[part] for part in parts])
        ends = np.cumsum([len(_joined(e)) for e in self.results]).tolist()
        joined = tuple(prod(packed.shape[a:b]) for a, b in zip((0, *ends), ends, strict=False))
        # A copy in one piece that keeps rank zero as it is.
        return np.array(packed, order="C").reshape(shape) if joined == shape else None


def _joined(e: Expr) -> tuple[Expr, ...]:
    """The digits that an index is made of, such as x and ``i % c`` of ``x * c + i % c``."""
    if not isinstance(e, Apply) or e.fn != "add":
        return (e,)
    high, low = e.args
    if not isinstance(high, Apply) or not isinstance(low, Apply):
        return (e,)
    if (high.fn, low.fn) == ("mul", "mod") and high.args[1] is low.args[1]:
        return (*_joined(high.args[0]), low)
    return (e,)


def _part(e: Expr) -> tuple[str, int, int] | None:
    """An old index (width 0), its quotient by a width (part 0) or its remainder (part 1)."""
    if isinstance(e, Var):
        return e.name, 0, 0
    if (
        not isinstance(e, Apply)
        or e.fn not in ("floordiv", "mod")
        or not isinstance(e.args[0], Var)
    ):
        return None
    width = e.args[1]
    if not isinstance(width, Const) or not isinstance(width.value, int) or width.value < 1:
        return None
    return e.args[0].name, width.value, int(e.fn == "mod")


def _evaluate(e: Expr, places: Mapping[str, np.ndarray]) -> np.ndarray:
    if isinstance(e, Var):
        return places[e.name]
    if isinstance(e, Const):
        return np.asarray(e.value)
    assert isinstance(e, Apply)
    return FUNCTIONS[e.fn].evaluate(*(_evaluate(a, places) for a in e.args))


def index_map(function: Callable[..., tuple[object, ...]]) -> IndexMap:
    """The map that a Python function of indices computes."""
    params = tuple(inspect.signature(function).parameters)
    results = function(*(Var(p) for p in params))
    return IndexMap(params, tuple(as_expr(r) for r in results))  # type: ignore[arg-type]


def parse_index_map(node: ast.Lambda) -> IndexMap:
    """The map that a ``lambda`` in a text says; nothing is executed.

    Raises:
        ValueError: if it is not a tuple of integer arithmetic.
    """
    params = tuple(a.arg for a in node.args.args)
    if not isinstance(node.body, ast.Tuple):
        raise ValueError("a tuple of indices is needed")
    return IndexMap(params, tuple(_expression(e) for e in node.body.elts))


def _expression(node: ast.expr) -> Expr:
    if isinstance(node, ast.Name):
        return Var(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return as_expr(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_expression(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATOR:
        symbol = _OPERATOR[type(node.op)]
        return apply(OPERATORS[symbol], _expression(node.left), _expression(node.right))
    raise ValueError(f"{ast.unparse(node)} is no index")
