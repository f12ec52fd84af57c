"""Let rows be rows: products of matrices stacked along leading axes become one product, and
reshapes move out of the way.

``reshape(x, (a, b, k))`` that only splits leading dimensions commutes with what computes element by
element, so it moves past that, and the elementwise operation ends up next to the product that it
can be fused into.
"""

from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import DType
from treadle.expr.scalar import Expr
from treadle.expr.simplify import simplify
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType, tensor
from treadle.ops._pointwise import Pointwise
from treadle.ops._shapes import same_dims
from treadle.ops.contraction import Matmul
from treadle.ops.reshape import Reshape


def sink_reshapes(module: Module) -> Module:
    """Flatten the leading axes of products by a matrix, and move the reshapes that arise below
    elementwise operations.
    """
    return module.map_graph_functions(lambda f: _Sink(f).run())


@dataclass(slots=True)
class _Sink:
    function: GraphFunction
    body: list[Binding] = field(default_factory=list[Binding])
    flat: dict[Value, Value] = field(default_factory=dict[Value, Value])
    reshaped: dict[tuple[Atom, tuple[Expr, ...]], Value] = field(
        default_factory=dict[tuple[Atom, tuple[Expr, ...]], Value]
    )

    def run(self) -> GraphFunction:
        for binding in self.function.body:
            if not (self.product(binding) or self.elementwise(binding)):
                self.body.append(binding)
                self.note_rows(binding)
        return replace_fields(self.function, body=tuple(self.body))

    def product(self, b: Binding) -> bool:
        """Flatten the rows of a product by a matrix."""
        if not isinstance(b.op, Matmul):
            return False
        x, w = b.args
        if not _is_tensor(x, 3) or not _is_tensor(w, 2) or w.type.ndim != 2:  # type: ignore[union-attr]
            return False
        rows = self.view(x, _rows(_dims(x)))
        self.emit(b, (rows, w), (rows.type.dims[0], _dims(w)[1]))  # type: ignore[union-attr]
        return True

    def note_rows(self, b: Binding) -> None:
        """Remember the matrix that a reshape stacks rows of."""
        source, wide = b.args[0] if b.args else None, _dims(b.outputs[0])
        if isinstance(b.op, Reshape) and isinstance(source, Value) and len(wide) >= 3:
            if len(_dims(source)) == 2 and same_dims(_rows(wide), _dims(source)):
                self.flat[b.outputs[0]] = source

    def elementwise(self, b: Binding) -> bool:
        """Compute on flattened operands what computes element by element."""
        if not isinstance(b.op, Pointwise) or len(b.outputs) != 1:
            return False
        wide = _dims(b.outputs[0])
        source = next(
            (self.flat[a] for a in b.args if isinstance(a, Value) and a in self.flat), None
        )
        if source is None or len(wide) < 3:
            return False
        rows = _dims(source)
        if not same_dims(_rows(wide), rows):
            return False
        args: list[Atom] = []
        for a in b.args:
            narrow = self.operand(a, wide, rows)
            if narrow is None:
                return False
            args.append(narrow)
        self.emit(b, tuple(args), rows)
        return True

    def operand(self, a: Atom, wide: tuple[Expr, ...], rows: tuple[Expr, ...]) -> Atom | None:
        """An operand as the flattened operation takes it; ``None`` if it broadcasts along flattened
        axes.
        """
        dims = _dims(a)
        if same_dims(dims, wide):
            return self.view(a, rows)
        return a if isinstance(a, Literal) or len(dims) <= 1 else None

    def view(self, a: Atom, dims: tuple[Expr, ...]) -> Value | ConstantRef:
        if isinstance(a, Value) and a in self.flat and same_dims(_dims(self.flat[a]), dims):
            return self.flat[a]
        known = self.reshaped.get((a, dims))
        if known is None:
            assert isinstance(a, Value | ConstantRef)
            known = Value(f"{a.name}_rows", tensor(dims, _dtype(a)))
            self.body.append(Binding((known,), Reshape(dims), (a,)))
            self.reshaped[a, dims] = known
        return known

    def emit(self, b: Binding, args: tuple[Atom, ...], dims: tuple[Expr, ...]) -> None:
        """Add an operation on rows, and the view of its result that the rest of the function
        uses.
        """
        out = b.outputs[0]
        narrow = Value(f"{out.name}_rows", tensor(dims, _dtype(out)))
        self.body.append(replace_fields(b, outputs=(narrow,), args=args))
        self.body.append(Binding((out,), Reshape(_dims(out)), (narrow,), b.span))
        self.flat[out] = narrow


def _is_tensor(a: Atom, rank: int) -> bool:
    return (
        isinstance(a, Value | ConstantRef)
        and isinstance(a.type, TensorType)
        and a.type.ndim >= rank
        and a.type.shape is not None
    )


def _dims(a: Atom) -> tuple[Expr, ...]:
    known = isinstance(a.type, TensorType) and a.type.shape is not None
    return a.type.dims if known else ()  # type: ignore[union-attr]


def _dtype(a: Atom) -> DType:
    assert isinstance(a.type, TensorType)
    return a.type.dtype


def _rows(dims: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """All dimensions but the last as one."""
    total = dims[0]
    for d in dims[1:-1]:
        total = total * d
    return simplify(total), dims[-1]
