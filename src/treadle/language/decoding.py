"""Tensor functions that decode packed weights.

They are functions like a user's own: no operation of the graph knows them. Fusion writes a decoding
into the product that takes it, and the schedule of that product decodes what it needs where it
needs it, so that a weight stays packed in memory.
"""

from treadle.expr.dtype import f32, i32
from treadle.expr.scalar import Expr, Var, apply, cast
from treadle.ir.calls import CallTensor
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.language.quantize import GROUP, Kind, QuantizedWeight
from treadle.ops._positions import Point, from_front

_HALF = GROUP // 2


def decoded(builder: GraphBuilder, weight: QuantizedWeight, name: str = "weight") -> Traced:
    """Add a call that decodes ``weight`` to f32 (inputs, outputs), the right operand of a product.

    The function, shared by weights of one kind and shape, is added to ``builder.functions``.
    """
    parts = [builder.constant(f"{name}_{part}", a) for part, a in weight.arrays.items()]
    function = decode_weight(weight.kind, tuple(p.type for p in parts), weight.inputs)
    out = tensor([weight.inputs, weight.outputs], f32)
    return _called(builder, function, parts, out, name)


def decoded_rows(
    builder: GraphBuilder, weight: QuantizedWeight, rows: Traced, name: str = "rows"
) -> Traced:
    """Add a call that decodes the outputs that ``rows``, integers (t,), name, to f32 (t, inputs):
    an embedding. A position that is out of range reads the nearest output.
    """
    parts = [builder.constant(f"{name}_{part}", a) for part, a in weight.arrays.items()]
    types = tuple(p.type for p in parts)
    function = decode_rows(weight.kind, types, weight.inputs, rows.type)
    out = TensorType((rows.shape[0], *tensor([weight.inputs], f32).dims), 2, f32)
    return _called(builder, function, [*parts, rows], out, name)


def _called(
    builder: GraphBuilder, function: TensorFunction, args: list[Traced], out: TensorType, name: str
) -> Traced:
    builder.functions[function.name] = function
    (result,) = builder.emit_all(CallTensor(function.name, (out,)), *args, name=name)
    return result


def decode_weight(kind: Kind, types: tuple[TensorType, ...], inputs: int) -> TensorFunction:
    """The function from the parts of a weight to f32 (inputs, outputs)."""
    outputs = types[0].dims[0]
    f = LoopBuilder(f"decode_{kind}_{outputs}x{inputs}")
    parts = _parts(f, types)
    f.compute(
        f.output((inputs, outputs), f32, "W"), lambda k, n: _value(kind, parts, n, k), "decode"
    )
    return f.build()


def decode_rows(
    kind: Kind, types: tuple[TensorType, ...], inputs: int, rows: TensorType
) -> TensorFunction:
    """The function from the parts of a weight and positions (t,) to f32 (t, inputs)."""
    outputs = types[0].dims[0]
    f = LoopBuilder(f"decode_rows_{kind}_{outputs}x{inputs}_{rows.dtype}")
    parts = _parts(f, types)
    positions = f.input(tensor([Var("t")], rows.dtype), "rows")

    def value(i: Var, k: Var) -> Expr:
        row = from_front(positions[i], outputs)
        return _value(kind, parts, row, k, data=True)

    f.compute(f.output((Var("t"), inputs), f32, "W"), value, "decode")
    return f.build()


def _parts(f: LoopBuilder, types: tuple[TensorType, ...]) -> list[Buffer]:
    return [
        f.input(t, name) for t, name in zip(types, ("codes", "scales", "offsets"), strict=False)
    ]


def _value(kind: Kind, parts: list[Buffer], n: Expr, k: Var, *, data: bool = False) -> Expr:
    """The value of input ``k`` of output ``n``; with ``data``, that comes from memory."""

    def at(buffer: Buffer, *rest: Expr) -> Expr:
        return Point(buffer, (n, *rest), (0,)).load() if data else buffer[(n, *rest)]

    codes, scales, *offsets = parts
    group = k // GROUP
    if kind == "int8":
        return cast(at(codes, k), f32) * at(scales)
    scale = cast(at(scales, group), f32)
    if kind == "int8_grouped":
        return cast(at(codes, k), f32) * scale
    byte = cast(at(codes, group * _HALF + k % _HALF), i32)
    shift = cast(k % GROUP // _HALF * 4, i32)
    code = apply("and", apply("shr", byte, shift), 15)
    # With a scale of 11 bits this is exact, and one multiply-add where there are such.
    offset = scale * -8 if kind == "int4" else cast(at(offsets[0], group), f32)
    return cast(code, f32) * scale + offset
