"""Exact values of symbolic dimensions in text: ``2*n + 1``, ``(n + 3) // 4``, ``min(n, m)``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache

from treadle_runtime.errors import RuntimeFault

_LONGEST = 20_000
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CALLS: dict[str, Callable[..., int]] = {
    "min": min,
    "max": max,
    "ceildiv": lambda a, b: -(-a // b),
}


def evaluate(text: str | int, symbols: Mapping[str, int]) -> int:
    """The value of a dimension, given the values of its variables.

    Integers, names, ``+ - * // %``, ``min``, ``max`` and ``ceildiv``; arithmetic is exact, division
    rounds down as in Python. Nothing else is read, and nothing is executed.

    Raises ``RuntimeFault`` E0721 if the text is no such expression, a variable has no value, or a
    divisor is zero.
    """
    if isinstance(text, int):
        return text
    try:
        return _value(_parse(text), symbols)
    except KeyError as error:
        raise _fault(text, f"'{error.args[0]}' has no value") from None
    except ZeroDivisionError:
        raise _fault(text, "a divisor is zero") from None
    except (SyntaxError, ValueError, TypeError) as error:
        raise _fault(text, str(error)) from None
    except (RecursionError, MemoryError):
        raise _fault(text, "it is nested too deeply") from None


def variables(text: str | int) -> frozenset[str]:
    """The names of the variables in a dimension; errors as for ``evaluate``."""
    if isinstance(text, int):
        return frozenset()
    try:
        names = {n.id for n in ast.walk(_parse(text)) if isinstance(n, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _fault(text, str(error)) from None
    return frozenset(names - _CALLS.keys())


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise ValueError("it is too long")
    return ast.parse(text.strip(), mode="eval").body


def _value(tree: ast.expr, symbols: Mapping[str, int]) -> int:
    match tree:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbols[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, symbols)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, symbols), _value(right, symbols))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS and args:
            return _CALLS[name](*(_value(a, symbols) for a in args), *_alone(args))
        case _:
            raise ValueError("only integers, names, + - * // %, min, max and ceildiv are known")


def _alone(args: list[ast.expr]) -> tuple[int, ...]:
    # min and max of one argument would want a sequence.
    if len(args) == 1:
        raise ValueError("min, max and ceildiv take two arguments")
    return ()


def _fault(text: str, why: str) -> RuntimeFault:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return RuntimeFault("E0721", f"cannot evaluate the dimension '{shown}'", notes=(why,))
