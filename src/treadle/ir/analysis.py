"""What follows from a function's statements: symbols, accesses, places of loops and blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from treadle.base.errors import InternalError
from treadle.expr.dtype import i64
from treadle.expr.facts import Facts
from treadle.expr.scalar import Apply, Expr, Var, apply, const, variables, walk
from treadle.ir.calls import BindSymbol
from treadle.ir.graph import Atom, GraphFunction, ShapeLiteral
from treadle.ir.graph import Literal as GraphLiteral
from treadle.ir.module import Function
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Intrinsic,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.ir.types import ShapeType, Type

Body = tuple[Stmt, ...]


# ---- Symbols


def _distinct(found: Iterator[Var]) -> tuple[Var, ...]:
    return tuple(dict.fromkeys(found))


def type_exprs(type_: Type) -> tuple[Expr, ...]:
    """The dimensions that a type says; none when only the rank is known."""
    if isinstance(type_, ShapeType):
        return type_.dims
    return type_.shape or ()


def shape_symbols(function: Function) -> tuple[Var, ...]:
    """The symbols in the shapes of a function's parameters, in order of first appearance."""
    if isinstance(function, GraphFunction):
        shapes = [type_exprs(p.type) for p in function.params]
        scalars: set[Var] = set()
    else:
        shapes = [b.shape for b in function.buffers]
        scalars = {p for p in function.params if isinstance(p, Var)}
    return _distinct(v for dims in shapes for v in variables(*dims) if v not in scalars)


def symbols(function: Function) -> tuple[Var, ...]:
    """The symbols in the parameters' shapes in order of first appearance, then the scalar
    parameters.
    """
    if isinstance(function, GraphFunction):
        return shape_symbols(function)
    scalars = tuple(p for p in function.params if isinstance(p, Var))
    return (*shape_symbols(function), *scalars)


def facts_of(function: Function) -> Facts:
    """What holds of the symbols of a function: no dimension is negative, and what it assumes."""
    nonnegative = tuple(v >= 0 for v in shape_symbols(function))
    return Facts.of((*nonnegative, *function.assumes, *_bound_facts(function)), {})


def bound_symbols(function: GraphFunction) -> tuple[Var, ...]:
    """The symbols that values give while the function runs, in order."""
    return tuple(b.op.variable for b in function.body if isinstance(b.op, BindSymbol))


def _bound_facts(function: Function) -> tuple[Expr, ...]:
    """What the function checks of the symbols that values give."""
    if not isinstance(function, GraphFunction):
        return ()
    return tuple(fact for b in function.body if isinstance(b.op, BindSymbol) for fact in b.op.where)


# ---- Walking statements


def children(stmt: Stmt) -> tuple[Body, ...]:
    """The bodies directly below a statement, in the order in which they run."""
    if isinstance(stmt, For):
        return (stmt.body,)
    if isinstance(stmt, Block):
        return (stmt.init, stmt.body)
    if isinstance(stmt, If):
        return (stmt.body, stmt.orelse)
    return ()


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that a statement itself evaluates, those of its bodies left out."""
    if isinstance(stmt, For):
        return (stmt.extent,)
    if isinstance(stmt, Block):
        axes = [e for axis in stmt.iters for e in (axis.extent, axis.binding)]
        return (*axes, *_optional(stmt.where))
    if isinstance(stmt, Store):
        return (*stmt.indices, stmt.value, *_optional(stmt.mask))
    if isinstance(stmt, If):
        return (stmt.condition,)
    if isinstance(stmt, Let):
        return (stmt.value,)
    return stmt.args if isinstance(stmt, Intrinsic) else stmt.buffer.shape


def _optional(x: Expr | None) -> tuple[Expr, ...]:
    return () if x is None else (x,)


def statements(body: Body) -> Iterator[Stmt]:
    """Every statement below, outer ones first, in the order of the text."""
    for stmt in body:
        yield stmt
        for inner in children(stmt):
            yield from statements(inner)


def paths(body: Body, above: tuple[Stmt, ...] = ()) -> Iterator[tuple[Stmt, tuple[Stmt, ...]]]:
    """Every statement below beside the statements that enclose it, outermost first."""
    for stmt in body:
        yield stmt, above
        for inner in children(stmt):
            yield from paths(inner, (*above, stmt))


def defined(body: Body) -> Iterator[Var]:
    """The variables that loops, blocks and lets of a body define."""
    for stmt in statements(body):
        if isinstance(stmt, For | Let):
            yield stmt.var
        elif isinstance(stmt, Block):
            yield from (axis.var for axis in stmt.iters)


def free_variables(body: Body) -> tuple[Var, ...]:
    """The variables that a body uses and does not define, in order of first appearance."""
    own = set(defined(body))
    used = (v for s in statements(body) for v in variables(*expressions(s)))
    return _distinct(v for v in used if v not in own)


def allocated(body: Body) -> tuple[Buffer, ...]:
    """The buffers that a body allocates."""
    return tuple(s.buffer for s in statements(body) if isinstance(s, Allocate))


# ---- Places


def find_loop(function: TensorFunction, name: str) -> For | None:
    """The loop over ``name``; names are unique within a function."""
    found = (s for s in statements(function.body) if isinstance(s, For) and s.var.name == name)
    return next(found, None)


def find_block(function: TensorFunction, name: str) -> Block | None:
    """The block called ``name``."""
    found = (s for s in statements(function.body) if isinstance(s, Block) and s.name == name)
    return next(found, None)


def blocks(function: TensorFunction) -> tuple[Block, ...]:
    """Every block of a function, in the order of the text."""
    return tuple(s for s in statements(function.body) if isinstance(s, Block))


def enclosing(function: TensorFunction, stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements around ``stmt``, outermost first.

    Raises:
        InternalError: if it does not stand in the function.
    """
    for found, above in paths(function.body):
        if found is stmt:
            return above
    raise InternalError(
        f"a {type(stmt).__name__} was looked for in {function.name} and is not there"
    )


def enclosing_loops(function: TensorFunction, stmt: Stmt) -> tuple[For, ...]:
    """The loops around a block (or another statement), outermost first."""
    return tuple(s for s in enclosing(function, stmt) if isinstance(s, For))


def names(function: Function) -> frozenset[str]:
    """Every name that means something in a function."""
    if isinstance(function, GraphFunction):
        values = [v.name for b in function.body for v in b.outputs]
        return frozenset((*(p.name for p in function.params), *values))
    found = {p.name for p in function.params} | {v.name for v in symbols(function)}
    found |= {v.name for v in defined(function.body)}
    found |= {b.name for b in allocated(function.body)}
    return frozenset(found)


def fresh_name(hint: str, taken: frozenset[str] | set[str] | Mapping[str, object]) -> str:
    """``hint``, or ``hint_1``, ``hint_2``…: the first that is not taken."""
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}_{count}"
    return name


# ---- Accesses


LANE = Var("<lane>")
"""The number of the lane of a vector that an access goes by."""


@dataclass(frozen=True, slots=True)
class Access:
    """A load or a store, and what stands around it, outermost first.

    ``conditions`` are those of the enclosing ``if`` (negated in an ``else``) and ``where``; the
    access's own mask is ``mask``. ``lets`` are the names in scope. An access to evenly spaced
    elements by one vector is shown as one in a loop over ``LANE``, innermost.
    """

    kind: Literal["load", "store"]
    buffer: Buffer
    indices: tuple[Expr, ...]
    mask: Expr | None
    stmt: Stmt
    loops: tuple[For, ...]
    blocks: tuple[Block, ...]
    conditions: tuple[Expr, ...]
    lets: tuple[Let, ...]
    in_init: bool

    @property
    def is_vector(self) -> bool:
        """Whether several elements are accessed at once."""
        wide = any(i.dtype.lanes > 1 for i in self.indices)
        return wide or any(loop.var is LANE for loop in self.loops)


@dataclass(frozen=True, slots=True)
class _Around:
    loops: tuple[For, ...] = ()
    blocks: tuple[Block, ...] = ()
    conditions: tuple[Expr, ...] = ()
    lets: tuple[Let, ...] = ()
    in_init: bool = False

    def but(self, **changes: object) -> "_Around":
        values = {n: getattr(self, n) for n in ("loops", "blocks", "conditions", "lets", "in_init")}
        return _Around(**(values | changes))  # type: ignore[arg-type]  (fields by name)


def accesses(body: Body, *, lanes: bool = True) -> tuple[Access, ...]:
    """Every load and store below, in the order of the text; what a store loads comes before it.

    Without ``lanes``, vectors stay in the indices.
    """
    found = _accesses(body, _Around())
    return tuple(_by_lane(a) if lanes else a for a in found)


def _by_lane(access: Access) -> Access:
    """An access by a vector as one in a loop over its lanes."""
    wide = next((n for n, i in enumerate(access.indices) if i.dtype.lanes > 1), None)
    if wide is None:
        return access
    index = access.indices[wide]
    if not isinstance(index, Apply) or index.fn != "ramp" or index.dtype.scalar is not i64:
        return access
    base, step = index.args
    lane = For(LANE, const(index.dtype.lanes), (), "vectorized")
    indices = tuple(base + LANE * step if n == wide else i for n, i in enumerate(access.indices))
    return replace(access, indices=indices, loops=(*access.loops, lane))


def loads(*exprs: Expr) -> tuple[Load, ...]:
    """The distinct loads below expressions."""
    return tuple(x for x in walk(*exprs) if isinstance(x, Load))


def _accesses(body: Body, around: _Around) -> Iterator[Access]:
    for stmt in body:
        for load in loads(*expressions(stmt)):
            yield _access("load", load.buffer, load.indices, load.mask, stmt, around)
        if isinstance(stmt, Store):
            yield _access("store", stmt.buffer, stmt.indices, stmt.mask, stmt, around)
        elif isinstance(stmt, Let):
            around = around.but(lets=(*around.lets, stmt))
        else:
            yield from _inner_accesses(stmt, around)


def _inner_accesses(stmt: Stmt, around: _Around) -> Iterator[Access]:
    if isinstance(stmt, For):
        yield from _accesses(stmt.body, around.but(loops=(*around.loops, stmt)))
    elif isinstance(stmt, Block):
        conditions = (*around.conditions, *_optional(stmt.where))
        inner = around.but(blocks=(*around.blocks, stmt), conditions=conditions)
        yield from _accesses(stmt.init, inner.but(in_init=True))
        yield from _accesses(stmt.body, inner)
    elif isinstance(stmt, If):
        then = around.but(conditions=(*around.conditions, stmt.condition))
        yield from _accesses(stmt.body, then)
        otherwise = around.but(conditions=(*around.conditions, ~stmt.condition))
        yield from _accesses(stmt.orelse, otherwise)


def _access(
    kind: Literal["load", "store"],
    buffer: Buffer,
    indices: tuple[Expr, ...],
    mask: Expr | None,
    stmt: Stmt,
    around: _Around,
) -> Access:
    return Access(
        kind,
        buffer,
        indices,
        mask,
        stmt,
        around.loops,
        around.blocks,
        around.conditions,
        around.lets,
        around.in_init,
    )


def buffers_read(body: Body) -> tuple[Buffer, ...]:
    """The buffers that a body loads from, in order of first appearance."""
    return tuple(dict.fromkeys(a.buffer for a in accesses(body) if a.kind == "load"))


def buffers_written(body: Body) -> tuple[Buffer, ...]:
    """The buffers that a body stores to, in order of first appearance."""
    return tuple(dict.fromkeys(a.buffer for a in accesses(body) if a.kind == "store"))


# ---- Symbols that operands of a graph mention


def atom_exprs(atom: Atom) -> tuple[Expr, ...]:
    """The expressions over symbols that an operand holds."""
    if isinstance(atom, ShapeLiteral):
        return atom.dims
    return (atom.value,) if isinstance(atom, GraphLiteral) else ()


def flat_index(buffer: Buffer, indices: Sequence[Expr]) -> Expr:
    """The number of elements of a buffer before the one at ``indices``, in row-major order; a
    vector of such numbers if an index is one.
    """
    place: Expr = const(0)
    for extent, index in zip(buffer.shape, indices, strict=True):
        place = shifted(spread_like(place, index) * spread_like(extent, place, index), index)
    return place


def spread_like(x: Expr, *others: Expr) -> Expr:
    """``x`` in as many lanes as the widest of others has."""
    lanes = max(e.dtype.lanes for e in others)
    if x.dtype.lanes > 1 or lanes == 1:
        return x
    return apply("broadcast", x, dtype=x.dtype.vector(lanes))


def shifted(index: Expr, by: Expr) -> Expr:
    """The sum of two indices, either of which may be a vector."""
    return spread_like(index, by) + spread_like(by, index)


def element_count(buffer: Buffer) -> Expr:
    """The number of elements of a buffer."""
    count: Expr = const(1)
    for extent in buffer.shape:
        count = count * extent
    return count
