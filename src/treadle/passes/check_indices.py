"""Test positions that a program takes from its inputs: the caller is told of a wrong one."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.base.span import Span
from treadle.expr.dtype import i64
from treadle.expr.scalar import Const, Expr, int_value
from treadle.expr.simplify import simplify
from treadle.ir.calls import AssertTrue
from treadle.ir.graph import Atom, Binding, GraphFunction
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.ops._positions import Indexing, Positions
from treadle.ops.binary import LogicalAnd
from treadle.ops.broadcast import Expand
from treadle.ops.compare import GreaterEqual, Less
from treadle.ops.elementwise import Cast
from treadle.ops.reduce import All
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Concat, Permute, Slice

_MOVING = (Reshape, Permute)
_PASSING = (*_MOVING, Cast, Expand, Slice, Concat)


def check_indices(module: Module, *, entry: str = "main") -> Module:
    """Let ``entry`` stop where an operation takes positions from its inputs, directly or moved and
    converted, and one is out of range.

    Positions that are computed otherwise are not tested; no position reaches beyond memory.
    """
    function = module.graph(entry)
    checked = _CheckIndices(function).run()
    return module.with_functions(checked if f is function else f for f in module.functions.values())


@dataclass(slots=True)
class _CheckIndices:
    """Inserts tests before the operations; equal positions along axes of one extent share one.

    ``origins`` has the inputs that a value consists of elements of, ``sources`` the values that
    others only hold in another order.
    """

    function: GraphFunction
    builder: GraphBuilder = field(init=False)
    origins: dict[Atom, tuple[str, ...]] = field(default_factory=dict[Atom, tuple[str, ...]])
    sources: dict[Atom, Atom] = field(default_factory=dict[Atom, Atom])
    done: set[tuple[Atom, Expr, int | None]] = field(
        default_factory=set[tuple[Atom, Expr, int | None]]
    )

    def run(self) -> GraphFunction:
        f = self.function
        self.builder = GraphBuilder(f.name, f.span)
        for value in (*f.params, *(v for b in f.body for v in b.outputs)):
            self.builder.fresh(value.name)
        self.origins.update((p, (n,)) for p, n in zip(f.params, f.input_names, strict=True))
        for b in f.body:
            if isinstance(b.op, Indexing):
                self.check(b, b.op)
            self.builder.body.append(b)
            self.follow(b)
        return replace_fields(f, body=tuple(self.builder.body)) if self.done else f

    def follow(self, b: Binding) -> None:
        """Note where the elements of a result come from."""
        if not isinstance(b.op, _PASSING):
            return
        found = tuple(dict.fromkeys(n for a in b.args for n in self.origins.get(a, ())))
        if found:
            self.origins[b.outputs[0]] = found
        if isinstance(b.op, _MOVING):
            self.sources[b.outputs[0]] = self.sources.get(b.args[0], b.args[0])

    def check(self, b: Binding, op: Indexing) -> None:
        types = [a.type for a in b.args if isinstance(a.type, TensorType)]
        if any(t.shape is None for t in types):
            return
        for p in op.positions(*types):
            given = b.args[p.operand]
            names = self.origins.get(given)
            if names:
                self.test(given, p, f"{op.op_name()}: a position in {_listed(names)}", b.span)

    def test(self, given: Atom, p: Positions, what: str, span: Span | None) -> None:
        source = self.sources.get(given, given) if p.column is None else given
        if (source, p.extent, p.column) in self.done:
            return
        self.done.add((source, p.extent, p.column))
        holds = self.all_inside(Traced(self.builder, source), p, span)
        message = f"{what} is out of range: the axis has size {p.extent}"
        self.builder.emit(AssertTrue(message, _cure(holds.lowest, p.extent)), holds.test, span=span)

    def all_inside(self, x: Traced, p: Positions, span: Span | None) -> "_Test":
        """Whether all positions are ones of an axis."""
        emit = self.builder.emit
        lowest = Const(0, i64) if x.dtype.kind == "uint" else simplify(-p.extent)
        if p.column is not None:
            x = emit(Slice(x.ndim - 1, p.column, p.column + 1), x, span=span)
        if x.dtype != i64:
            x = emit(Cast(i64), x, span=span)
        low, high = (self.builder.literal(e, i64) for e in (lowest, p.extent))
        above, below = emit(GreaterEqual(), x, low, span=span), emit(Less(), x, high, span=span)
        inside = emit(LogicalAnd(), above, below, span=span)
        whole = emit(All(tuple(range(x.ndim))), inside, span=span) if x.ndim else inside
        return _Test(whole, lowest)


@dataclass(frozen=True, slots=True)
class _Test:
    """A value that tells whether positions are in range, and the lowest position."""

    test: Traced
    lowest: Expr


def _listed(names: Sequence[str]) -> str:
    """The inputs, in words."""
    quoted = [f"'{n}'" for n in names]
    if len(quoted) == 1:
        return f"the input {quoted[0]}"
    return f"the inputs {', '.join(quoted[:-1])} and {quoted[-1]}"


def _cure(lowest: Expr, extent: Expr) -> str:
    if int_value(extent) == 0:
        return "pass no positions: nothing has one"
    return f"pass positions from {lowest} to {simplify(extent - 1)}"
