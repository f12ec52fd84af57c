"""Build graph functions one operation at a time; types are inferred as they are added."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from treadle.base.errors import InternalError
from treadle.base.span import Span
from treadle.expr.dtype import DType, from_numpy
from treadle.expr.scalar import Const, Expr, as_expr
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, ShapeLiteral, Value
from treadle.ir.module import Constant
from treadle.ir.op import Op
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType, Type


@dataclass(frozen=True, slots=True, eq=False)
class Traced:
    """An atom of a function under construction, beside the builder that operations on it are added
    to.
    """

    builder: "GraphBuilder"
    atom: Atom

    @property
    def type(self) -> TensorType:
        """The tensor type of the value."""
        found = self.atom.type
        if not isinstance(found, TensorType):
            raise InternalError(f"a tensor was expected, not {found}")
        return found

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[Expr, ...]:
        """The dimensions, which must be known."""
        return self.type.dims

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.type.ndim


@dataclass(eq=False)
class GraphBuilder:
    """Collects the bindings of one graph function, and the constants and tensor functions that
    they name.
    """

    name: str
    span: Span | None = None
    params: list[Value] = field(default_factory=list[Value])
    body: list[Binding] = field(default_factory=list[Binding])
    constants: dict[str, Constant] = field(default_factory=dict[str, Constant])
    assumes: list[Expr] = field(default_factory=list[Expr])
    functions: dict[str, TensorFunction] = field(default_factory=dict[str, TensorFunction])
    _names: dict[str, int] = field(default_factory=dict[str, int])

    def fresh(self, hint: str) -> str:
        """A name not used yet, made from ``hint``."""
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in hint) or "v"
        base = base if not base[0].isdigit() else f"v{base}"
        count = self._names.get(base, -1) + 1
        self._names[base] = count
        return base if count == 0 else self.fresh(f"{base}_{count}")

    def input(self, name: str, type: Type) -> Traced:  # noqa: A002
        """Add a parameter."""
        value = Value(self.fresh(name), type)
        self.params.append(value)
        return Traced(self, value)

    def constant(self, name: str, array: np.ndarray) -> Traced:
        """Add a constant of the module."""
        dtype = from_numpy(array.dtype)
        if dtype is None:
            raise InternalError(f"no element type for constants of {array.dtype}")
        type_ = TensorType(tuple(as_expr(d) for d in array.shape), array.ndim, dtype)
        unique = self.fresh(name)
        self.constants[unique] = Constant(type_, array)
        return Traced(self, ConstantRef(unique, type_))

    def literal(self, value: Expr | float | bool, dtype: DType) -> Traced:
        """A number (or a scalar expression over symbols) as an operand of rank 0."""
        if isinstance(value, Expr):
            return Traced(self, Literal(value))
        return Traced(self, Literal(Const(value, dtype)))

    def shape(self, *dims: Expr) -> Traced:
        """Dimensions as an operand."""
        return Traced(self, ShapeLiteral(dims))

    def emit(
        self, op: Op, *args: Traced, name: str | None = None, span: Span | None = None
    ) -> Traced:
        """Add an operation with one result."""
        (result,) = self.emit_all(op, *args, name=name, span=span)
        return result

    def emit_all(
        self,
        op: Op,
        *args: Traced,
        name: str | None = None,
        names: Sequence[str] = (),
        span: Span | None = None,
    ) -> tuple[Traced, ...]:
        """Add an operation with any number of results; their types are inferred.

        Raises:
            TypeMismatch: what the operation's ``infer`` says of its operands.
        """
        inferred = op.infer(*(a.atom.type for a in args))  # type: ignore[arg-type]  (a joint may take shapes)
        types = inferred if isinstance(inferred, tuple) else (inferred,)
        hints = names or [name or op.op_name()] * len(types)
        outputs = tuple(Value(self.fresh(h), t) for h, t in zip(hints, types, strict=True))
        self.body.append(Binding(outputs, op, tuple(a.atom for a in args), span or self.span))
        return tuple(Traced(self, v) for v in outputs)

    def finish(self, *results: Traced) -> GraphFunction:
        """The function that returns ``results``."""
        atoms = tuple(r.atom for r in results)
        return GraphFunction(
            self.name, tuple(self.params), tuple(self.body), atoms, tuple(self.assumes), self.span
        )
