"""Tensors from nothing but their description."""

from treadle.expr.dtype import boolean, f64, i64
from treadle.expr.scalar import Const, Expr
from treadle.frontend.torch.context import Context, Converter, Number, Operand, Size
from treadle.ir.graph_builder import Traced
from treadle.ops.binary import Add, Mul
from treadle.ops.compare import Equal
from treadle.ops.create import Arange


def _filled(c: Context, value: Operand) -> Traced:
    """The node's shape, full of a number or of a tensor of one element."""
    if isinstance(value, Traced):
        return c.expand(c.cast(value, c.dtype), c.shape)
    if isinstance(value, Expr) and not isinstance(value, Const):
        literal = c.literal(value, c.dtype)
        return c.expand(literal, c.shape)
    number = value.value if isinstance(value, Const) else value
    return c.full(c.shape, number, c.dtype)


def full(c: Context, size: object, value: Operand, *_: object) -> Traced:
    """One number everywhere; ``size`` may be a tensor whose shape counts."""
    return _filled(c, value)


def new_full(c: Context, x: Traced, size: object, value: Operand, *_: object) -> Traced:
    """The same, in the dtype of a tensor."""
    return _filled(c, value)


def fill(c: Context, x: Traced, value: Operand) -> Traced:
    """The same, in the shape of a tensor."""
    return _filled(c, value)


def scalar_tensor(c: Context, value: Operand, *_: object) -> Traced:
    """A number as a tensor of no dimensions."""
    return _filled(c, value)


def _constant(value: Number) -> Converter:
    """A creator whose arguments say only shape and dtype."""

    def converter(c: Context, *_: object) -> Traced:
        return _filled(c, value)

    return converter


def arange(c: Context, stop: Size | float, *_: object) -> Traced:
    """From zero."""
    return _range(c, 0, stop, 1)


def arange_start(c: Context, start: Size | float, stop: Size | float, *_: object) -> Traced:
    """From a start."""
    return _range(c, start, stop, 1)


def arange_step(
    c: Context, start: Size | float, stop: Size | float, step: Size | float = 1, *_: object
) -> Traced:
    """From a start, in steps."""
    return _range(c, start, stop, step)


def _range(c: Context, start: Size | float, stop: Size | float, step: Size | float) -> Traced:
    symbolic = any(isinstance(x, Expr) for x in (start, stop, step))
    if not symbolic:
        return c.emit(Arange(start, stop, step, c.dtype))
    (count,) = c.shape
    return counted(c, count, start, step)


def counted(c: Context, count: Size, start: Size | float, step: Size | float) -> Traced:
    """``count`` numbers from ``start`` in steps, in the node's dtype; both may be symbolic."""
    wide = f64 if c.dtype.is_float else i64
    found = c.count(count, wide)
    if not _is(step, 1):
        found = c.emit(Mul(), found, c.literal(step, wide))
    if not _is(start, 0):
        found = c.emit(Add(), found, c.literal(start, wide))
    return c.cast(found, c.dtype)


def _is(x: Size | float, number: int) -> bool:
    return isinstance(x, int | float) and x == number


def iota(c: Context, length: Size, start: Size, step: Size, *_: object) -> Traced:
    """``length`` integers from ``start`` in steps."""
    return counted(c, length, start, step)


def eye(c: Context, *_: object) -> Traced:
    """Ones on the diagonal."""
    rows, columns = c.shape
    row = c.reshape(c.count(rows), (rows, 1))
    column = c.count(columns)
    found = c.emit(Equal(), row, column)
    return found if c.dtype is boolean else c.cast(found, c.dtype)


def _creators(name: str, value: Number) -> dict[str, Converter]:
    plain = "memory_format" if name == "empty" else "default"
    overloads = (f"{name}.{plain}", f"{name}_like.default", f"new_{name}.default")
    return {overload: _constant(value) for overload in overloads}


CONVERTERS: dict[str, Converter] = {
    **_creators("zeros", 0),
    **_creators("ones", 1),
    **_creators("empty", 0),
    "empty_strided.default": _constant(0),
    "new_empty_strided.default": _constant(0),
    "full.default": full,
    "full_like.default": full,
    "new_full.default": new_full,
    "fill.Scalar": fill,
    "fill.Tensor": fill,
    "scalar_tensor.default": scalar_tensor,
    "arange.default": arange,
    "arange.start": arange_start,
    "arange.start_step": arange_step,
    "eye.default": eye,
    "eye.m": eye,
}
