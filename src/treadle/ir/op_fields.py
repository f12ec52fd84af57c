"""Fields of operations as text: what each class declares, and how a value of it prints."""

import math
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from treadle.base.errors import InternalError
from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import Const, Expr
from treadle.ir.op import Op
from treadle.ir.types import ShapeType, TensorType

FUNCTION_FIELDS = frozenset({"function", "then", "orelse", "condition", "body"})


@cache
def op_fields(cls: type[Op]) -> tuple[Field[Any], ...]:
    """The fields of an operation, in order of declaration."""
    return tuple(f for f in fields(cls) if f.init)  # type: ignore[arg-type]  (every op is one)


@cache
def _hints(cls: type[Op]) -> dict[str, Any]:
    return get_type_hints(cls)


def _mentioned(hint: Any) -> Iterator[Any]:  # noqa: ANN401  (a type form)
    yield hint
    for part in get_args(hint):
        yield from _mentioned(part)


@cache
def holds_expressions(cls: type[Op], name: str) -> bool:
    """Whether the integers in a field are expressions: it is declared with ``Expr`` and without
    ``int``.
    """
    found = set(_mentioned(_hints(cls)[name]))
    return Expr in found and int not in found


def default_of(field: Field[Any]) -> Any:  # noqa: ANN401  (as the class declares)
    """The value that a field has when it is left out; ``MISSING`` if it must be given."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default


def same_value(a: object, b: object) -> bool:
    """Whether two values of a field are one: equal and of one kind (1, 1.0 and True differ)."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same_value(x, y) for x, y in zip(a, b, strict=True))
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return a == b


def field_text(cls: type[Op], name: str, value: object) -> str:
    """A field's value in Python's notation; the parser reads the same value back."""
    if name in FUNCTION_FIELDS and isinstance(value, str):
        return value
    return _text(value, holds_expressions(cls, name))


def _text(value: object, expressions: bool) -> str:
    if isinstance(value, tuple):
        inner = ", ".join(_text(v, expressions) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Const) and not expressions and value.dtype == i64:
        # A bare number would read back as a Python one.
        return f"i64({value.value})"
    if isinstance(value, Expr | DType | TensorType | ShapeType):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    raise InternalError(f"a field of an operation holds {value!r}, which has no text")
