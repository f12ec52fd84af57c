"""Operations that pad their operand leave that to an operation of its own, which what computes the
operand can do at once as it stores it.

A value that is also used without the border, as by the sum around a block of a residual network, is
then stored once all the same: those uses read it from inside of its border.
"""

from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import int_value
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.op import Op
from treadle.ir.types import TensorType
from treadle.ops._pointwise import Pointwise
from treadle.ops.convolution import Conv
from treadle.ops.pad import Pad
from treadle.ops.shape import Slice


def separate_padding(module: Module) -> Module:
    """Split every padded operation of floating-point numbers into ``pad`` and the rest."""
    return module.map_graph_functions(lambda f: _Inside(_Separate(f).run()).run())


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


class _Inside:
    """Lets all uses of a value read it from inside of its border, where that costs none of them
    anything: what goes along rows of an image anyway.
    """

    def __init__(self, function: GraphFunction) -> None:
        self.function = function
        self.makers: dict[Atom, Binding] = {v: b for b in function.body for v in b.outputs}
        self.uses: dict[Atom, list[Binding]] = {}
        for b in function.body:
            for a in dict.fromkeys(b.args):
                self.uses.setdefault(a, []).append(b)
        self.pads = {b.args[0]: b for b in function.body if self.is_shared(b)}

    def run(self) -> GraphFunction:
        if not self.pads:
            return self.function
        moved, body = set(self.pads.values()), list[Binding]()
        for b in (b for b in self.function.body if b not in moved):
            args = tuple(self.inside(a, b, body) if a in self.pads else a for a in b.args)
            body.append(replace_fields(b, args=args))
            body.extend(self.pads[v] for v in b.outputs if v in self.pads)
        return replace_fields(self.function, body=tuple(body))

    def is_shared(self, b: Binding) -> bool:
        """Whether a binding adds a border to a value that is used besides."""
        if not isinstance(b.op, Pad) or b.args[0] not in self.makers:
            return False
        sizes = [int_value(x) for pair in b.op.pads for x in pair]
        others = [u for u in self.uses[b.args[0]] if u is not b]
        return (
            b.op.mode == "constant"
            and all(x is not None and x >= 0 for x in sizes)
            and b.args[0] not in self.function.results
            and len(others) > 0
            and all(self.goes_by_rows(u, b.args[0]) for u in others)
        )

    def goes_by_rows(self, user: Binding, value: Atom) -> bool:
        """Whether a use does not take an image for a list of points: windows do not, and neither
        does what follows them point by point.
        """
        if isinstance(user.op, Conv):
            return not _takes_points(user)
        if not isinstance(user.op, Pointwise):
            return False
        products, seen, left = list[Binding](), set[Binding](), [user]
        while left:
            b = left.pop()
            if isinstance(b.op, Conv):
                products.append(b)
            elif isinstance(b.op, Pointwise) and b not in seen:
                seen.add(b)
                left += [self.makers[a] for a in b.args if a is not value and a in self.makers]
        return bool(products) and not any(map(_takes_points, products))

    def inside(self, a: Atom, user: Binding, body: list[Binding]) -> Value:
        """A value from where its border is around it."""
        pad = self.pads[a]
        value, name = pad.outputs[0], f"{user.outputs[0].name}_{pad.outputs[0].name}"
        assert isinstance(pad.op, Pad)
        assert isinstance(a.type, TensorType)
        for axis, ((before, after), extent) in enumerate(
            zip(pad.op.pads, a.type.dims, strict=True)
        ):
            if int_value(before) == int_value(after) == 0:
                continue
            op = Slice(axis, before, before + extent)
            assert isinstance(value.type, TensorType)
            result = Value(f"{name}_{axis}", op.infer(value.type))
            body.append(Binding((result,), op, (value,), user.span))
            value = result
        return value


def _takes_points(b: Binding) -> bool:
    """Whether a convolution computes each point of its result from one point."""
    weight = b.args[1].type
    assert isinstance(b.op, Conv)
    assert isinstance(weight, TensorType)
    return all(x == 1 for x in b.op.stride) and all(int_value(d) == 1 for d in weight.dims[2:])
