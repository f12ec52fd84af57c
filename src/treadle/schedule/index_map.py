"""Maps of indices as data: ``lambda k, j: (j // 64, k, j % 64)``."""

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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

    def pack(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The elements of ``array`` in their new places in an array of ``shape``; zero where none
        goes.
        """
        places = {p: np.indices(array.shape)[d] for d, p in enumerate(self.params)}
        packed = np.zeros(shape, array.dtype)
        packed[tuple(_evaluate(e, places) for e in self.results)] = array
        return packed


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
