"""Graph-level functions: tensors, pure, in A-normal form."""

from treadle.base.node import node
from treadle.base.span import Span
from treadle.expr.scalar import Expr
from treadle.ir.op import Op
from treadle.ir.types import ShapeType, TensorType, Type


@node
class Value:
    """What a parameter or a binding defines; known by its name within a function."""

    name: str
    type: Type


@node
class ConstantRef:
    """A constant of the module, by name."""

    name: str
    type: TensorType


@node
class Literal:
    """A scalar expression as a tensor of no dimensions: a number, or one computed from symbolic
    dimensions.
    """

    value: Expr

    @property
    def type(self) -> TensorType:
        """A tensor of rank 0 of the expression's dtype."""
        return TensorType((), 0, self.value.dtype)


@node
class ShapeLiteral:
    """A tuple of dimensions as an operand."""

    dims: tuple[Expr, ...]

    @property
    def type(self) -> ShapeType:
        """The shape that it is."""
        return ShapeType(self.dims)


Atom = Value | ConstantRef | Literal | ShapeLiteral


@node
class Binding:
    """``outputs = op(*args)``. An operation has one or more results, each with a name of its
    own.
    """

    outputs: tuple[Value, ...]
    op: Op
    args: tuple[Atom, ...]
    span: Span | None = None


@node
class GraphFunction:
    """A pure function of tensors: bindings in order, each name defined once.

    ``inputs`` and ``outputs`` are what callers from outside call the parameters and the results,
    where that differs from the names of the values; any text will do. ``donated`` are pairs of
    numbers of a result and of a parameter of the same type, for an entry: its caller gives the
    parameter's memory away, and the result lies there.
    """

    name: str
    params: tuple[Value, ...]
    body: tuple[Binding, ...]
    results: tuple[Atom, ...]
    assumes: tuple[Expr, ...] = ()
    span: Span | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    donated: tuple[tuple[int, int], ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """What callers call the parameters."""
        return self.inputs or tuple(p.name for p in self.params)

    @property
    def output_names(self) -> tuple[str, ...]:
        """What callers call the results; one that has no name of its own is numbered."""
        if self.outputs:
            return self.outputs
        names: list[str] = []
        for i, r in enumerate(self.results):
            name = r.name if isinstance(r, Value) and r not in self.params else f"output_{i}"
            while name in names:
                name += f"_{i}"
            names.append(name)
        return tuple(names)

    def __str__(self) -> str:
        from treadle.ir.printer import function_text  # noqa: PLC0415  (the printer knows every node)

        return function_text(self)
