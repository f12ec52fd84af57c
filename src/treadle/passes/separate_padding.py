"""Operations that pad their operand leave that to an operation of its own, which what computes the
operand can do at once as it stores it.
"""

from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import int_value
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.op import Op
from treadle.ir.types import TensorType
from treadle.ops.convolution import Conv
from treadle.ops.pad import Pad


def separate_padding(module: Module) -> Module:
    """Split every padded operation of floating-point numbers into ``pad`` and the rest."""
    return module.map_graph_functions(lambda f: _Separate(f).run())


@dataclass(slots=True)
class _Separate:
    function: GraphFunction
    body: list[Binding] = field(default_factory=list[Binding])
    padded: dict[tuple[Atom, Pad], Value] = field(default_factory=dict[tuple[Atom, Pad], Value])

    def run(self) -> GraphFunction:
        for b in self.function.body:
            self.body.append(self.separated(b))
        if len(self.body) == len(self.function.body):
            return self.function
        return replace_fields(self.function, body=tuple(self.body))

    def separated(self, b: Binding) -> Binding:
        types = [a.type for a in b.args if isinstance(a.type, TensorType)]
        if not types or len(types) < len(b.args) or not types[0].dtype.is_float:
            return b
        found = b.op.unpadded(*types)
        if found is None:
            return b
        if b.args[0] in self.function.params and _is_depthwise(b.op, types[0]):
            return b  # Nothing that could add the border computes this: each image gets its own.
        pads, value, op = found
        padded = self.pad(b, Pad(pads, "constant", value))
        return replace_fields(b, op=op, args=(padded, *b.args[1:]))

    def pad(self, b: Binding, op: Pad) -> Value:
        """The padded operand; equal ones are padded once."""
        source = b.args[0]
        if (source, op) not in self.padded:
            assert isinstance(source.type, TensorType)
            result = Value(f"{b.outputs[0].name}_padded", op.infer(source.type))
            self.body.append(Binding((result,), op, (source,), b.span))
            self.padded[source, op] = result
        return self.padded[source, op]


def _is_depthwise(op: Op, operand: TensorType) -> bool:
    """Whether each channel is convolved by a kernel of its own."""
    return (
        isinstance(op, Conv)
        and operand.shape is not None
        and int_value(operand.dims[1]) == op.groups
    )
