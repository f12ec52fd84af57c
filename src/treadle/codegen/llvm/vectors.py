"""Functions between scalars and vectors: ramps, broadcasts, shuffles, horizontal reductions."""

from treadle.base.errors import CodegenError
from treadle.codegen.llvm.convert import narrow, widen
from treadle.codegen.llvm.types import (
    Operand,
    computing,
    constant,
    lane_numbers,
    scalar_register,
    suffix,
    vector_of,
)
from treadle.codegen.llvm.writer import Writer, split_type
from treadle.expr.dtype import DType

VECTOR_FUNCTIONS = frozenset(
    {"ramp", "broadcast", "shuffle", "reduce_add", "reduce_mul", "reduce_min", "reduce_max"}
)


def vector_function(
    w: Writer, fn: str, args: tuple[Operand, ...], source: DType, result: DType
) -> Operand:
    """Apply ``ramp``, ``broadcast``, ``shuffle`` or a horizontal reduction."""
    if fn == "broadcast":
        return w.splat(args[0], result.lanes)
    if fn == "ramp":
        return ramp(w, args[0], args[1], result.lanes)
    if fn == "shuffle":
        return _shuffle(w, args[0], args[1], tuple(int(x.name) for x in args[2:]))
    return _reduce(w, fn.removeprefix("reduce_"), args[0], source)


def ramp(w: Writer, base: Operand, stride: Operand, lanes: int) -> Operand:
    """The vector base + lane * stride of integers."""
    if stride.name.lstrip("-").isdigit():
        steps = lane_numbers(lanes, base.type, int(stride.name))
    else:
        steps = w.op("mul", lane_numbers(lanes, base.type), w.splat(stride, lanes))
    return steps if base.name == "0" else w.op("add", w.splat(base, lanes), steps)


def _shuffle(w: Writer, a: Operand, b: Operand, lanes: tuple[int, ...]) -> Operand:
    picks = ", ".join(f"i32 {lane}" for lane in lanes)
    kind = vector_of(split_type(a.type)[1], len(lanes))
    return w.assign(kind, f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{picks}>")


_INTEGER = {"add": "add", "mul": "mul"}
_BOOL = {"add": "or", "mul": "and", "min": "and", "max": "or"}


def _reduce(w: Writer, how: str, x: Operand, dtype: DType) -> Operand:
    """Combine the lanes; only here may LLVM choose the order of floating-point sums."""
    if dtype.is_bool:
        return _intrinsic(w, _BOOL[how], dtype, x)
    if not dtype.is_float:
        if how in _INTEGER:
            return _intrinsic(w, _INTEGER[how], dtype, x)
        return _intrinsic(w, ("u" if dtype.kind == "uint" else "s") + how, dtype, x)
    wide = computing(dtype)
    value = widen(w, x, dtype)
    if how in ("min", "max"):
        result = _intrinsic(w, f"f{how}imum", wide, value, flags="nsz ")
    elif how == "add":
        start = constant(-0.0, wide.scalar)
        result = _intrinsic(w, "fadd", wide, value, start, flags="reassoc ")
    elif how == "mul":
        start = constant(1.0, wide.scalar)
        result = _intrinsic(w, "fmul", wide, value, start, flags="reassoc ")
    else:
        raise CodegenError("E0501", f"there is no machine code for reduce_{how} of {dtype}")
    return narrow(w, result, dtype.scalar)


def _intrinsic(
    w: Writer, name: str, dtype: DType, x: Operand, *start: Operand, flags: str = ""
) -> Operand:
    kind = scalar_register(dtype)
    symbol = f"@llvm.vector.reduce.{name}.{suffix(dtype)}"
    args = (*start, x)
    w.declare(kind, symbol, *(a.type for a in args))
    return w.call(symbol, kind, *args, flags=flags)
