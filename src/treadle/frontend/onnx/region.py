"""Functions under construction: where bindings go, and what a nested function takes from the one
around it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto

from treadle.base.errors import InternalError, ModelImportError
from treadle.expr.dtype import DType, i64
from treadle.expr.scalar import Const, Expr, Var, as_expr
from treadle.frontend.onnx.value import Known, NeedsValue, Operand, known_size, no_tensor
from treadle.ir.calls import BindSymbol
from treadle.ir.graph import Atom, ConstantRef, GraphFunction, Literal, ShapeLiteral, Value
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Constant
from treadle.ir.op import Op
from treadle.ops.elementwise import Cast
from treadle.ops.reshape import Reshape, reshaped
from treadle.ops.shape import Concat, Slice

# Elements of a value that may become symbols.
_MOST_SIZES = 8
RunGraph = Callable[["Region", GraphProto, Sequence[Operand]], list[Operand]]


@dataclass(eq=False)
class Program:
    """What all functions of a module under construction share; ``sizes`` are the values whose
    elements are symbols.
    """

    functions: dict[str, GraphFunction] = field(default_factory=dict[str, GraphFunction])
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])
    symbols: dict[str, Var] = field(default_factory=dict[str, Var])
    sizes: dict[Atom, Known] = field(default_factory=dict[Atom, Known])
    _references: dict[Known, ConstantRef] = field(default_factory=dict[Known, ConstantRef])
    _names: GraphBuilder = field(default_factory=lambda: GraphBuilder("names"))

    def fresh(self, hint: str) -> str:
        """A name for a function or a constant that no other has."""
        return self._names.fresh(hint)

    def constant(self, value: Known) -> ConstantRef:
        """Numbers as a constant of the module, the same for all functions that use them."""
        found = self._references.get(value)
        if found is None:
            name = self.fresh(value.name)
            self.constants[name] = Constant(value.type, value.array)
            found = self._references[value] = ConstantRef(name, value.type)
        return found


@dataclass(eq=False)
class Region:
    """One function under construction.

    ``taken`` has, for every value of an enclosing function that this one uses, the value there and
    the parameter here.
    """

    builder: GraphBuilder
    program: Program
    outer: "Region | None" = None
    taken: dict[Atom, tuple[Traced, Traced]] = field(
        default_factory=dict[Atom, tuple[Traced, Traced]]
    )
    _made: dict[Known, Traced] = field(default_factory=dict[Known, Traced])

    def bring(self, x: Traced) -> Traced:
        """``x`` as a value of this function; a value of one around it becomes a parameter."""
        if x.builder is self.builder:
            return x
        if isinstance(x.atom, Literal | ConstantRef | ShapeLiteral):
            return Traced(self.builder, x.atom)
        found = self.taken.get(x.atom)
        if found is not None:
            return found[1]
        if self.outer is None:
            raise InternalError(f"'{x.atom.name}' is used outside of the function that defines it")
        outside = self.outer.bring(x)
        inside = self.builder.input(x.atom.name, x.type)
        self.taken[x.atom] = (outside, inside)
        return inside

    def traced(self, operand: Operand) -> Traced:
        """An operand as a value of this function; one that is only known becomes a constant or is
        computed."""
        if operand.traced is not None:
            return self.bring(operand.traced)
        if operand.known is None:
            raise no_tensor()
        return self.known(operand.known)

    def known(self, value: Known) -> Traced:
        """A known value as a value of this function."""
        found = self._made.get(value)
        if found is None:
            found = self._made[value] = self._make(value)
        return found

    def _make(self, value: Known) -> Traced:
        if value.array.ndim == 0:
            return Traced(self.builder, Literal(value.literal()))
        if value.is_concrete:
            return Traced(self.builder, self.program.constant(value))
        parts = [self._element(x, value.dtype) for x in value.exprs()]
        flat = parts[0] if len(parts) == 1 else self.builder.emit(Concat(0), *parts)
        return reshaped(flat, value.type.dims)

    def _element(self, x: Expr, dtype: DType) -> Traced:
        scalar = Traced(self.builder, Literal(x if x.dtype == dtype else as_expr(x)))
        one = Reshape((1,))(scalar)
        return one if one.dtype == dtype else Cast(dtype)(one)

    def nested(self, hint: str) -> "Region":
        """A region for a function that is called from this one."""
        name = self.program.fresh(hint)
        return Region(GraphBuilder(name, self.builder.span), self.program, self)

    def take_all(self, others: "Region") -> None:
        """Add the parameters that a sibling took, in its order, so that both take the same operands
        after their own."""
        for atom, (outside, _) in others.taken.items():
            if atom not in self.taken:
                name = atom.name if isinstance(atom, Value) else "value"
                self.taken[atom] = (outside, self.builder.input(name, outside.type))

    def close(self, *results: Traced) -> None:
        """Finish the function; its last parameter gives it the symbols of the program, if there are
        any."""
        symbols = tuple(self.program.symbols.values())
        if symbols:
            shape = ShapeLiteral(symbols)
            self.builder.params.append(Value(self.builder.fresh("symbols"), shape.type))
        function = self.builder.finish(*[self.bring(r) for r in results])
        self.program.functions[function.name] = function

    def operands_of(self, child: "Region") -> list[Traced]:
        """What this function must pass to a closed child after the child's own operands."""
        taken = [self.bring(outside) for outside, _ in child.taken.values()]
        symbols = tuple(self.program.symbols.values())
        return [*taken, Traced(self.builder, ShapeLiteral(symbols))] if symbols else taken


@dataclass(frozen=True, eq=False)
class Site:
    """Where a node is converted: the function that its operations go to, and what the node says of
    itself.

    ``wanted`` tells which results something uses; ``version`` is the opset of the node's domain.
    ``expand`` converts the body of other operators by which ONNX defines the node's, instead.
    """

    region: Region
    version: int
    wanted: tuple[bool, ...]
    place: str
    run_graph: RunGraph
    expand: Callable[["Region"], Sequence[Operand | None]]

    @property
    def builder(self) -> GraphBuilder:
        """The builder of the function."""
        return self.region.builder

    def wants(self, index: int) -> bool:
        """Whether result ``index`` is used."""
        return index < len(self.wanted) and self.wanted[index]

    def emit(self, op: Op, *args: Traced) -> Traced:
        """Add an operation, which may be one without operands."""
        return self.builder.emit(op, *args)

    def constant(self, array: np.ndarray) -> Traced:
        """An array as a constant of the module (a literal, if it is a scalar)."""
        return self.region.known(Known.of(np.asarray(array)))

    def number(self, value: float | bool, dtype: DType) -> Traced:
        """A number as an operand."""
        return Traced(self.builder, Literal(Const(value, dtype)))

    def traced(self, operand: Operand) -> Traced:
        """An operand as a value of the program."""
        return self.region.traced(operand)

    def late_size(self, hint: str) -> Var:
        """A symbol for a size that data give.

        Raises:
            ModelImportError: E0602 in a branch or a loop.
        """
        if self.region.outer is not None:
            raise ModelImportError(
                "E0602",
                "a size depends on data inside of a branch or a loop",
                place=self.place,
                help="compute what has this size outside, or pad it to a known size",
            )
        program = self.region.program
        name = program.fresh(self.builder.fresh(hint))
        return program.symbols.setdefault(f"{name} of data", Var(name))

    def sizes(self, operand: Operand, what: str) -> Known:
        """What an operand holds, if need be as symbols for its elements, few integers.

        Raises:
            ModelImportError: as ``known``, if they are not few integers of the outermost function.
        """
        if operand.known is not None or self.region.outer is not None or operand.traced is None:
            return self.known(operand, what)
        count = known_size(operand.shape) if operand.ndim <= 1 and operand.dtype.is_int else None
        if count is None or count > _MOST_SIZES:
            return self.known(operand, what)
        held = self.region.program.sizes
        if operand.traced.atom in held:
            return held[operand.traced.atom]
        x = operand.traced if operand.dtype is i64 else Cast(i64)(operand.traced)
        parts = [Slice(0, k, k + 1)(x) for k in range(count)] if x.ndim else [x]
        found = np.empty(count, object)
        for k, part in enumerate(parts):
            found[k] = self.late_size("value")
            self.emit(BindSymbol(found[k]), Reshape(())(part) if part.ndim else part)
        value = Known.symbolic(found if x.ndim else found.reshape(()), operand.dtype)
        held[operand.traced.atom] = value
        return value

    def known(self, operand: Operand, what: str) -> Known:
        """What an operand holds.

        Raises:
            NeedsValue: E0603 when it depends on inputs of the model whose values are not given.
            ModelImportError: E0602 when it depends on nothing that could be given.
        """
        if operand.known is not None:
            return operand.known
        raise unknown(operand, what, self.place)


def unknown(operand: Operand, what: str, place: str) -> ModelImportError:
    """The error of an operand whose value must be known and is not."""
    if operand.sources:
        return NeedsValue(tuple(sorted(operand.sources)), what, place)
    return ModelImportError(
        "E0602",
        f"{what} depends on data that are computed when the model runs",
        place=place,
        help="replace it by a constant in the model",
    )
