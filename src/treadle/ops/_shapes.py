"""What operations check and deduce of their operands: counts, axes, dtypes and dimensions.

Codes: E0101 number of operands, E0102 dtypes differ, E0103 dtype not accepted, E0104 axis, E0105
broadcasting, E0106 dimensions differ, E0107 rank, E0108 value of a field, E0109 number of elements.
"""

from collections.abc import Sequence
from functools import reduce as fold
from typing import Literal

from treadle.expr.dtype import DType, f32
from treadle.expr.scalar import Const, Expr, ExprLike, as_expr, int_value
from treadle.expr.simplify import simplify
from treadle.ir.op import Op, fail
from treadle.ir.tensor import ONE, ZERO, Buffer
from treadle.ir.types import TensorType

Family = Literal["float", "int", "bool", "number", "integral", "any"]
Dims = tuple[Expr, ...]

_FAMILY_TEXT: dict[Family, str] = {
    "float": "floats",
    "int": "integers",
    "bool": "booleans",
    "number": "numbers",
    "integral": "integers or booleans",
    "any": "anything",
}


def operands(
    op: Op, types: tuple[TensorType, ...], least: int, most: int | None = None
) -> tuple[TensorType, ...]:
    """The operands' types, at least ``least`` and at most ``most`` (default: as many) of them;
    E0101 otherwise."""
    high = least if most is None else most
    if not least <= len(types) <= high:
        count = str(least) if high == least else f"{least} to {high}"
        raise fail(
            op,
            "E0101",
            f"takes {count} operands, not {len(types)}",
            "pass tensors by position and attributes by keyword",
        )
    return types


def one(op: Op, types: tuple[TensorType, ...]) -> TensorType:
    """The type of the only operand; E0101 if there is not exactly one."""
    return operands(op, types, 1)[0]


def is_in(dtype: DType, family: Family) -> bool:
    """Whether a dtype belongs to a family of dtypes."""
    table = {
        "float": dtype.is_float,
        "int": dtype.is_int,
        "bool": dtype.is_bool,
        "number": not dtype.is_bool,
        "integral": not dtype.is_float,
        "any": True,
    }
    return table[family]


def check_dtype(op: Op, dtype: DType, family: Family, what: str = "the operand") -> DType:
    """``dtype`` itself; E0103 if it is none of the family."""
    if not is_in(dtype, family):
        raise fail(
            op,
            "E0103",
            f"{what} must hold {_FAMILY_TEXT[family]}, not {dtype}",
            help="insert a cast",
        )
    return dtype


def check_same_dtype(op: Op, types: Sequence[TensorType]) -> DType:
    """The dtype that all operands share; E0102 if they do not."""
    first = types[0].dtype
    for t in types[1:]:
        if t.dtype != first:
            raise fail(
                op, "E0102", f"operands of dtypes {first} and {t.dtype}", help="cast one of them"
            )
    return first


def check_is(op: Op, dtype: DType, expected: DType, what: str) -> None:
    """E0103 unless ``dtype`` is the ``expected`` one."""
    if dtype != expected:
        raise fail(op, "E0103", f"{what} must be {expected}, not {dtype}", help="insert a cast")


def check_rank(
    op: Op, t: TensorType, least: int, most: int | None = None, what: str = "the operand"
) -> None:
    """E0107 unless the rank is at least ``least`` and at most ``most`` (``None``: no limit)."""
    if t.ndim < least or (most is not None and t.ndim > most):
        limit = (
            f"at least {least}"
            if most is None
            else str(least)
            if most == least
            else f"{least} to {most}"
        )
        raise fail(
            op, "E0107", f"{what} must have rank {limit}, not {t.ndim}", "reshape the operand first"
        )


def check_field(
    op: Op,
    condition: bool,
    message: str,
    help: str | None = None,  # noqa: A002  (the word that the rendered message uses)
) -> None:
    """E0108 with ``message`` unless the condition on a field holds."""
    if not condition:
        raise fail(op, "E0108", message, help)


def check_dims(op: Op, dims: Sequence[ExprLike]) -> None:
    """E0108 unless every dimension in a field is an integer expression, or a whole number of zero
    or more."""
    for d in dims:
        x = as_expr(d)
        size = int_value(x)
        whole = not x.dtype.is_float and not x.dtype.is_bool and (size is None or size >= 0)
        check_field(op, whole, f"{d} is no dimension", "give whole numbers of zero or more")


def normalize_axis(op: Op, axis: int, ndim: int) -> int:
    """The axis counted from the front; E0104 if it is out of range."""
    if not -ndim <= axis < ndim:
        known = f"axes go from {-ndim} to {ndim - 1}" if ndim else "a scalar has no axes"
        raise fail(op, "E0104", f"axis {axis} is out of range for rank {ndim}", known)
    return axis % ndim


def normalize_axes(op: Op, axes: Sequence[int], ndim: int) -> tuple[int, ...]:
    """The axes counted from the front, in ascending order; E0104 if one is out of range or named
    twice."""
    found = sorted(normalize_axis(op, a, ndim) for a in axes)
    if len(set(found)) != len(found):
        raise fail(op, "E0104", f"axes {tuple(axes)} name one axis twice", "name each axis once")
    return tuple(found)


def same_dim(a: ExprLike, b: ExprLike) -> bool:
    """Whether two dimensions are equal for every value of their symbols."""
    x, y = as_expr(a), as_expr(b)
    if x is y:
        return True
    if isinstance(x, Const) and isinstance(y, Const):
        return x.value == y.value
    return int_value(simplify(x - y)) == 0


def same_dims(a: Sequence[ExprLike], b: Sequence[ExprLike]) -> bool:
    """Whether two shapes are equal for every value of their symbols."""
    return len(a) == len(b) and all(same_dim(x, y) for x, y in zip(a, b, strict=True))


def check_same_dim(op: Op, a: Expr, b: Expr, what: str) -> None:
    """E0106 unless two dimensions are provably equal."""
    if not same_dim(a, b):
        raise fail(
            op,
            "E0106",
            f"{what} must be equal, but are {a} and {b}",
            "pass operands whose dimensions agree",
        )


def is_one(dim: ExprLike) -> bool:
    """Whether a dimension is known to be one."""
    return int_value(dim) == 1


def text(dims: Sequence[ExprLike]) -> str:
    """A shape in Python's notation."""
    inner = ", ".join(map(str, dims))
    return f"({inner},)" if len(dims) == 1 else f"({inner})"


def product(dims: Sequence[ExprLike]) -> Expr:
    """The simplified product; 1 for none."""
    return simplify(fold(lambda a, b: a * b, map(as_expr, dims), ONE))


def dim(value: ExprLike) -> Expr:
    """A dimension, simplified."""
    return simplify(as_expr(value))


def broadcast_shapes(op: Op, *shapes: Dims) -> Dims:
    """The common shape under NumPy's rules; E0105 if there is none.

    A symbolic dimension stretches nothing but an explicit 1.
    """
    result: list[Expr] = [ONE] * max((len(s) for s in shapes), default=0)
    for shape in shapes:
        for position, d in enumerate(reversed(shape), 1):
            known = result[-position]
            if is_one(known):
                result[-position] = d
            elif not is_one(d) and not same_dim(known, d):
                names = " and ".join(text(s) for s in shapes)
                raise fail(
                    op,
                    "E0105",
                    f"shapes {names} do not broadcast: {known} against {d}",
                    "make the dimensions equal, or one of them 1",
                )
    return tuple(result)


def broadcast_types(op: Op, types: Sequence[TensorType], dtype: DType) -> TensorType:
    """The type of an elementwise result; only the rank is known when an operand's dimensions are
    not."""
    if any(t.shape is None for t in types):
        return TensorType(None, max(t.ndim for t in types), dtype)
    return tensor_type(broadcast_shapes(op, *(t.dims for t in types)), dtype)


def tensor_type(dims: Sequence[ExprLike], dtype: DType) -> TensorType:
    """The type of a tensor of these dimensions."""
    shape = tuple(as_expr(d) for d in dims)
    return TensorType(shape, len(shape), dtype)


def element(buffer: Buffer, indices: Sequence[Expr]) -> Expr:
    """The element of ``buffer`` that NumPy's broadcasting puts at ``indices`` of a result of the
    same rank or more."""
    skipped = len(indices) - buffer.ndim
    aligned = indices[skipped:]
    return buffer[
        tuple(ZERO if is_one(d) else i for d, i in zip(buffer.shape, aligned, strict=True))
    ]


def reduced_dims(dims: Dims, axes: Sequence[int], keepdims: bool) -> Dims:
    """The shape after a reduction over normalized ``axes``."""
    if keepdims:
        return tuple(ONE if k in axes else d for k, d in enumerate(dims))
    return tuple(d for k, d in enumerate(dims) if k not in axes)


def replaced(indices: Sequence[Expr], axis: int, value: ExprLike) -> tuple[Expr, ...]:
    """``indices`` with another value at ``axis``."""
    return (*indices[:axis], as_expr(value), *indices[axis + 1 :])


def wide(dtype: DType) -> DType:
    """The dtype that sums and chains of functions are computed in: f32 for 16-bit floats, else the
    dtype itself."""
    return f32 if dtype.is_float and dtype.bits < 32 else dtype
