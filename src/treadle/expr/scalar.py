"""Interned scalar expressions: identity is equality.

Integers (64-bit by default) index and measure, floats and booleans compute; vector types stand for
unrolled lanes. Constants fold when they are built; every other simplification is
``treadle.expr.simplify``'s.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from weakref import ref

import numpy as np

from treadle.base.errors import InternalError
from treadle.expr.dtype import DType, boolean, f32, i64
from treadle.expr.functions import FUNCTIONS

Number = int | float | bool


class _Entry(ref[Any]):
    """A weak reference that knows the key it is filed under."""

    __slots__ = ("key",)
    key: Any


class _Table:
    """What is interned, by key, for as long as somebody holds it."""

    __slots__ = ("_dead", "_forgetting", "entries")

    def __init__(self) -> None:
        self.entries: dict[Any, _Entry] = {}
        self._dead: list[_Entry] = []
        self._forgetting = False

    def get(self, key: Any) -> Any:  # noqa: ANN401
        """The object of a key, or ``None``."""
        entry = self.entries.get(key)
        return None if entry is None else entry()

    def add(self, key: Any, made: Any) -> Any:  # noqa: ANN401
        """File ``made``, unless another thread was first; what is filed is returned."""
        entry = _Entry(made, self._forget)
        entry.key = key
        first = self.entries.setdefault(key, entry)
        if first is entry:
            return made
        found = first()
        if found is not None:
            return found
        # The earlier object is dead and its entry waits to be removed.
        self.entries[key] = entry
        return made

    def _forget(self, entry: _Entry) -> None:
        """Remove the entry of an object that died; what dies with its key waits its turn."""
        self._dead.append(entry)
        if self._forgetting:
            return
        self._forgetting = True
        try:
            while self._dead:
                last = self._dead.pop()
                if self.entries.get(last.key) is last:
                    del self.entries[last.key]
        finally:
            self._forgetting = False


_TABLE = _Table()
_CONSTANTS = _Table()
_VARIABLES = _Table()
_APPLICATIONS = _Table()
_new = object.__new__


class Interned:
    """What exists once: building it again with the same parts gives the same object."""

    __slots__ = ("__weakref__",)

    @classmethod
    def _intern(cls, key: tuple[Any, ...], make: Callable[[], Any]) -> Self:
        found = _TABLE.get((cls, *key))
        return _TABLE.add((cls, *key), make()) if found is None else found


class Expr(Interned):
    """A scalar (or short vector) value, computed from others; never changes."""

    __slots__ = ("dtype",)
    dtype: DType

    @property
    def children(self) -> tuple["Expr", ...]:
        """The operands."""
        return ()

    def with_children(self, children: tuple["Expr", ...]) -> "Expr":
        """The same function of other operands."""
        return self

    def __bool__(self) -> bool:
        raise InternalError(
            f"the truth of a symbolic expression was asked for: {self}; use prove() or eq()"
        )

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return to_text(self)

    def __reduce__(self) -> tuple[Any, ...]:
        raise InternalError(f"{type(self).__name__} says nothing of how it is pickled")

    def __add__(self, other: "ExprLike") -> "Expr":
        return apply("add", self, other)

    def __radd__(self, other: "ExprLike") -> "Expr":
        return apply("add", other, self)

    def __sub__(self, other: "ExprLike") -> "Expr":
        return apply("sub", self, other)

    def __rsub__(self, other: "ExprLike") -> "Expr":
        return apply("sub", other, self)

    def __mul__(self, other: "ExprLike") -> "Expr":
        return apply("mul", self, other)

    def __rmul__(self, other: "ExprLike") -> "Expr":
        return apply("mul", other, self)

    def __truediv__(self, other: "ExprLike") -> "Expr":
        return apply("div", self, other)

    def __rtruediv__(self, other: "ExprLike") -> "Expr":
        return apply("div", other, self)

    def __floordiv__(self, other: "ExprLike") -> "Expr":
        return apply("floordiv", self, other)

    def __rfloordiv__(self, other: "ExprLike") -> "Expr":
        return apply("floordiv", other, self)

    def __mod__(self, other: "ExprLike") -> "Expr":
        return apply("mod", self, other)

    def __rmod__(self, other: "ExprLike") -> "Expr":
        return apply("mod", other, self)

    def __neg__(self) -> "Expr":
        return apply("neg", self)

    def __invert__(self) -> "Expr":
        return apply("invert", self)

    def __and__(self, other: "ExprLike") -> "Expr":
        return apply("and", self, other)

    def __or__(self, other: "ExprLike") -> "Expr":
        return apply("or", self, other)

    def __xor__(self, other: "ExprLike") -> "Expr":
        return apply("xor", self, other)

    def __lshift__(self, other: "ExprLike") -> "Expr":
        return apply("shl", self, other)

    def __rshift__(self, other: "ExprLike") -> "Expr":
        return apply("shr", self, other)

    def __lt__(self, other: "ExprLike") -> "Expr":
        return apply("lt", self, other)

    def __le__(self, other: "ExprLike") -> "Expr":
        return apply("le", self, other)

    def __gt__(self, other: "ExprLike") -> "Expr":
        return apply("gt", self, other)

    def __ge__(self, other: "ExprLike") -> "Expr":
        return apply("ge", self, other)


ExprLike = Expr | Number


class Const(Expr):
    """A known value: a Python int, float or bool beside its type."""

    __slots__ = ("value",)
    value: Number

    def __new__(cls, value: Number, dtype: DType) -> "Const":
        # Floats are filed as text, which tells 0.0 from -0.0, so a number found here is the integer
        # it equals.
        found = _CONSTANTS.get((value, dtype))
        if found is not None:
            return found
        value = _normalize(value, dtype)
        key = (value.hex() if isinstance(value, float) else value, dtype)
        found = _CONSTANTS.get(key)
        if found is not None:
            return found
        self = _new(cls)
        self.value, self.dtype = value, dtype
        return _CONSTANTS.add(key, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Const, (self.value, self.dtype)


class Var(Expr):
    """A name for a value: a symbolic dimension, a loop variable, a scalar parameter."""

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str, dtype: DType = i64) -> "Var":
        key = (name, dtype)
        found = _VARIABLES.get(key)
        if found is not None:
            return found
        self = _new(cls)
        self.name, self.dtype = name, dtype
        return _VARIABLES.add(key, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Var, (self.name, self.dtype)


class Apply(Expr):
    """A pure function (``fn``, a name in ``FUNCTIONS``) of operands; build it with ``apply``."""

    __slots__ = ("args", "fn")
    fn: str
    args: tuple[Expr, ...]

    def __new__(cls, fn: str, args: tuple[Expr, ...], dtype: DType) -> "Apply":
        # Filed as ``apply`` is called: with the type only where it does not follow from the
        # operands.
        key = (fn, args, dtype if FUNCTIONS[fn].result == "explicit" else None)
        found = _APPLICATIONS.get(key)
        if found is not None:
            return found
        self = _new(cls)
        self.fn, self.args, self.dtype = fn, args, dtype
        return _APPLICATIONS.add(key, self)

    @property
    def children(self) -> tuple[Expr, ...]:
        """The operands."""
        return self.args

    def with_children(self, children: tuple[Expr, ...]) -> Expr:
        """The same function of other operands; constants fold."""
        return apply(
            self.fn,
            *children,
            dtype=self.dtype if FUNCTIONS[self.fn].result == "explicit" else None,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Apply, (self.fn, self.args, self.dtype)


def _normalize(value: Number, dtype: DType) -> Number:
    if dtype.is_float:
        if dtype.bits == 64 or math.isnan(value):
            return float(value)
        with np.errstate(over="ignore"):
            return float(dtype.numpy.type(value))
    if dtype.is_bool:
        return bool(value)
    value = int(value)
    wrapped = value & ((1 << dtype.bits) - 1)
    return (
        wrapped - (1 << dtype.bits)
        if dtype.kind == "int" and wrapped >> (dtype.bits - 1)
        else wrapped
    )


def const(value: Number, dtype: DType | None = None) -> Const:
    """A constant; unless given, the type follows from the value (int: i64, float: f32, bool)."""
    if dtype is None:
        dtype = boolean if isinstance(value, bool) else i64 if isinstance(value, int) else f32
    return Const(value, dtype)


def apply(fn: str, *args: ExprLike, dtype: DType | None = None) -> Expr:
    """Apply the scalar function ``fn``.

    Python numbers take the type of the first operand that is an expression. Operands of arithmetic
    must agree in type. An application to constants becomes the constant.

    Raises:
        InternalError: if the operands' types or number do not fit.
    """
    entry = _APPLICATIONS.entries.get((fn, args, dtype))
    if entry is not None and (found := entry()) is not None:
        return found
    function = FUNCTIONS[fn]
    if len(args) != function.arity and not (function.variadic and len(args) > function.arity):
        raise InternalError(f"{fn} takes {function.arity} operands, not {len(args)}")
    operands = _coerce(fn, args)
    if function.result == "explicit":
        if dtype is None:
            raise InternalError(f"{fn} needs the type of its result")
        result = dtype
    else:
        result = operands[0].dtype
        for x in operands:
            if x.dtype is not result:
                raise InternalError(_mismatch(fn, operands))
        if function.result == "bool":
            result = boolean if result.lanes == 1 else boolean.vector(result.lanes)
    constants: list[Const] = []
    for x in operands:
        if not isinstance(x, Const):
            return Apply(fn, operands, result)
        constants.append(x)
    folded = _fold(fn, tuple(constants), result)
    return Apply(fn, operands, result) if folded is None else folded


def _mismatch(fn: str, operands: tuple[Expr, ...]) -> str:
    kinds = ", ".join(str(x.dtype) for x in operands)
    return f"the operands of {fn} differ in type: {kinds} in {fn}({', '.join(map(str, operands))})"


def _coerce(fn: str, args: tuple[ExprLike, ...]) -> tuple[Expr, ...]:
    for x in args:
        if not isinstance(x, Expr):
            break
    else:
        return args  # type: ignore[return-value]  (all are expressions)
    dtype = None
    for x in args[1:] if fn == "select" else args:
        if isinstance(x, Expr):
            dtype = x.dtype
            break
    return tuple([x if isinstance(x, Expr) else const(x, dtype) for x in args])


_FOLDED = frozenset({"arithmetic", "compare", "logic", "select", "convert"})
_FOLDED_MATH = frozenset({"floor", "ceil", "trunc", "round", "sqrt", "rsqrt"})
_DIVIDES = frozenset({"floordiv", "mod", "truncdiv", "truncmod", "div"})


def _fold(fn: str, args: tuple[Const, ...], dtype: DType) -> Const | None:
    """What an application of constants comes to; ``None`` for x // 0 and for rounded functions."""
    if FUNCTIONS[fn].family not in _FOLDED and fn not in _FOLDED_MATH:
        return None
    if fn in _DIVIDES and not args[0].dtype.is_float and args[1].value == 0:
        return None
    if fn == "cast":
        return _fold_cast(args[0], dtype)
    if fn == "bitcast":
        if dtype.lanes > 1 or args[0].dtype.lanes > 1:
            return None
        bits = np.asarray(args[0].value, args[0].dtype.numpy).view(dtype.numpy)
        return Const(bits.item(), dtype)
    if fn == "select":
        return args[1] if args[0].value else args[2]
    with np.errstate(all="ignore"):
        value = FUNCTIONS[fn].evaluate(*(np.asarray(x.value, x.dtype.numpy) for x in args))
    return Const(np.asarray(value).astype(dtype.numpy).item(), dtype)


def _fold_cast(x: Const, dtype: DType) -> Const | None:
    if x.dtype.is_float and not dtype.is_float and not math.isfinite(x.value):
        return None
    return Const(bool(x.value) if dtype.is_bool else x.value, dtype)


def eq(a: ExprLike, b: ExprLike) -> Expr:
    """The expression ``a == b`` (the operator itself compares identity)."""
    return apply("eq", a, b)


def ne(a: ExprLike, b: ExprLike) -> Expr:
    """The expression ``a != b``."""
    return apply("ne", a, b)


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """The smaller operand; NaN if one is NaN."""
    return apply("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The larger operand; NaN if one is NaN."""
    return apply("max", a, b)


def select(condition: Expr, a: ExprLike, b: ExprLike) -> Expr:
    """``a`` where ``condition`` holds, else ``b``; both are evaluated."""
    operands = _coerce("select", (condition, a, b))
    return apply("select", *operands, dtype=operands[1].dtype)


def cast(x: Expr, dtype: DType) -> Expr:
    """Convert as C does: floats truncate towards zero, integers wrap, anything not zero is true."""
    if x.dtype is dtype:
        return x
    return apply("cast", x, dtype=dtype)


def ceildiv(a: ExprLike, b: int) -> Expr:
    """``a / b`` rounded up, for a positive ``b``."""
    a = a if isinstance(a, Expr) else const(a)
    return (a + (b - 1)) // b


def as_expr(x: ExprLike) -> Expr:
    """``x`` itself, or the constant that a Python number means."""
    return x if isinstance(x, Expr) else const(x)


def int_value(x: ExprLike) -> int | None:
    """The Python integer that ``x`` is known to be, if it is a constant."""
    if isinstance(x, int):
        return x
    return x.value if isinstance(x, Const) and isinstance(x.value, int) else None


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct node below the roots, operands before what uses them."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        x, ready = stack.pop()
        if ready:
            yield x
        elif x not in seen:
            seen.add(x)
            stack.append((x, True))
            stack.extend((c, False) for c in reversed(x.children))


def variables(*roots: Expr) -> tuple[Var, ...]:
    """The distinct variables below the roots, in order of first appearance."""
    return tuple(x for x in walk(*roots) if isinstance(x, Var))


def transform(x: Expr, visit: Callable[[Expr], Expr | None]) -> Expr:
    """Rebuild ``x`` from the leaves up; ``visit`` sees each rebuilt node and may replace it."""
    memo: dict[Expr, Expr] = {}
    for old in walk(x):
        children = old.children
        new = old
        if children:
            rebuilt = tuple([memo[c] for c in children])
            new = old if rebuilt == children else old.with_children(rebuilt)
        replaced = visit(new)
        memo[old] = new if replaced is None else replaced
    return memo[x]


def substitute(x: Expr, values: Mapping[Var, Expr]) -> Expr:
    """``x`` with variables exchanged for expressions, all at once."""
    if not values or isinstance(x, Const):
        return x
    return transform(x, lambda e: values.get(e) if isinstance(e, Var) else None)


_PRECEDENCE = {
    "|": 2, "^": 3, "&": 4, "<<": 5, ">>": 5, "+": 6, "-": 6, "*": 7, "/": 7, "//": 7, "%": 7,
}  # fmt: skip
_COMPARE = 1
_UNARY = 8
_ATOM = 9
_NAMES = {"min": "min", "max": "max", "abs": "abs", "round": "round", "pow": "pow"}


def to_text(x: Expr) -> str:
    """``x`` in Python's syntax; ``treadle.ir.parser`` reads it back."""
    return _text(x)[0]


def _text(x: Expr) -> tuple[str, int]:
    if isinstance(x, Const):
        return _const_text(x)
    if isinstance(x, Var):
        return x.name, _ATOM
    if isinstance(x, Apply):
        return _apply_text(x)
    return x.to_text(), _ATOM  # type: ignore[attr-defined]


def _const_text(x: Const) -> tuple[str, int]:
    if x.dtype == i64:
        return str(x.value), _ATOM if x.value >= 0 else _UNARY
    if x.dtype.is_bool and x.dtype.lanes == 1:
        return str(x.value), _ATOM
    if isinstance(x.value, float) and not math.isfinite(x.value):
        return f'{x.dtype}("{x.value}")', _ATOM
    return f"{x.dtype}({x.value!r})", _ATOM


def _apply_text(x: Apply) -> tuple[str, int]:
    function = FUNCTIONS[x.fn]
    if function.symbol is not None:
        level = _COMPARE if function.family == "compare" else _PRECEDENCE[function.symbol]
        left, right = _text(x.args[0]), _text(x.args[1])
        # A comparison chains in Python, so both sides of one must bind tighter.
        a = left[0] if left[1] >= level + (level == _COMPARE) else f"({left[0]})"
        b = right[0] if right[1] > level else f"({right[0]})"
        return f"{a} {function.symbol} {b}", level
    if x.fn in ("neg", "invert"):
        inner, level = _text(x.args[0])
        sign = "-" if x.fn == "neg" else "~"
        # -(3) would read back as the constant, so constants stay in parentheses.
        return (
            f"{sign}{inner}"
            if level >= _UNARY and not isinstance(x.args[0], Const)
            else f"{sign}({inner})"
        ), _UNARY
    args = [_text(a)[0] for a in x.args]
    if x.fn in ("cast", "bitcast", "ramp", "broadcast"):
        args.append(str(x.dtype))
    return f"{x.fn}({', '.join(args)})", _ATOM
