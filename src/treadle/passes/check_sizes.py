"""Let a program test what it needs of sizes that depend on data, as soon as it knows them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import f64
from treadle.expr.scalar import Apply, Const, Expr, Var, as_expr, cast, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import bound_symbols, shape_symbols, type_exprs
from treadle.ir.calls import AssertTrue, BindSymbol
from treadle.ir.graph import Atom, Binding, GraphFunction, Literal, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.ops.shape import Slice
from treadle.passes.specialize_calls import substituted

_MOST_ELEMENTS = float(1 << 45)
"""What a size that values give may make of a tensor: more has no address."""


def check_sizes(module: Module) -> Module:
    """Attach to each ``bind_symbol`` what must hold of its value: that no dimension is negative,
    that slices lie in their operands, and what the program asserts.
    """
    return module.map_graph_functions(
        lambda f: _CheckSizes(_merged(f)).run() if bound_symbols(f) else f
    )


def _merged(function: GraphFunction) -> GraphFunction:
    """The function with one symbol for each value that gives one."""
    late = set(bound_symbols(function))
    first: dict[Atom, Binding] = {}
    same: dict[Var, Expr] = {}
    atoms: dict[Atom, Atom] = {}
    claims: dict[Binding, list[Expr]] = {}
    for b in function.body:
        if isinstance(b.op, BindSymbol) and late.isdisjoint(_others(b.op)):
            found = first.setdefault(b.args[0], b)
            claims.setdefault(found, []).extend(b.op.where)
            if found is not b and isinstance(found.op, BindSymbol):
                same[b.op.variable] = found.op.variable
                atoms[b.outputs[0]] = found.outputs[0]
    if not same:
        return function
    body: list[Binding] = []
    for b in function.body:
        args = tuple(atoms.get(a, a) for a in b.args)
        if isinstance(b.op, BindSymbol) and b.op.variable in same:
            continue
        if isinstance(b.op, BindSymbol) and b in claims:
            where = (substitute(c, same) for c in claims[b])
            b = replace_fields(b, op=BindSymbol(b.op.symbol, tuple(dict.fromkeys(where))))
        body.append(replace_fields(b, args=args))
    results = tuple(atoms.get(r, r) for r in function.results)
    return substituted(replace_fields(function, body=tuple(body), results=results), same)


def _bounds(claim: Expr, symbol: Var) -> bool:
    """Whether a claim says that a symbol is at most something."""
    return isinstance(claim, Apply) and claim.fn in ("le", "lt") and claim.args[0] is symbol


def _count(dims: Sequence[Expr]) -> Expr:
    """The number of elements, which may be too large for an integer."""
    total: Expr = Const(1.0, f64)
    for d in dims:
        total = total * cast(d, f64)
    return total


def _others(op: BindSymbol) -> set[Var]:
    """The symbols in the claims of an operation beside its own."""
    return set(variables(*op.where)) - {op.variable}


@dataclass(slots=True)
class _CheckSizes:
    """One graph function; ``claims`` are what must hold, beside the last symbol that they need."""

    function: GraphFunction
    late: tuple[Var, ...] = ()
    unbounded: set[Var] = field(default_factory=set[Var])
    facts: list[Expr] = field(default_factory=list[Expr])
    claims: dict[Var, list[Expr]] = field(default_factory=dict[Var, list[Expr]])
    atoms: dict[Value, Atom] = field(default_factory=dict[Value, Atom])

    def run(self) -> GraphFunction:
        f = self.function
        self.late = bound_symbols(f)
        self.facts = [*(v >= 0 for v in shape_symbols(f)), *f.assumes]
        for b in f.body:
            if isinstance(b.op, BindSymbol):
                self.facts.extend(b.op.where)
        self.unbounded = {v for v in self.late if not any(_bounds(c, v) for c in self.facts)}
        kept = [b for b in f.body if not self.taken(b)]
        body = tuple(self.rebuilt(b) for b in kept)
        results = tuple(self.atom(r) for r in f.results)
        return replace_fields(f, body=body, results=results)

    def atom(self, a: Atom) -> Atom:
        return self.atoms.get(a, a) if isinstance(a, Value) else a

    def taken(self, b: Binding) -> bool:
        """Note what a binding needs; whether it is an assertion that needs no place of its own."""
        for dims in (type_exprs(v.type) for v in b.outputs):
            for d in dims:
                self.claim(d >= 0)
            if not self.unbounded.isdisjoint(variables(*dims)):
                self.claim(_count(dims) <= Const(_MOST_ELEMENTS, f64))
        if isinstance(b.op, Slice) and isinstance(b.args[0].type, TensorType):
            start, stop = as_expr(b.op.start), as_expr(b.op.stop)
            extent = b.args[0].type.dims[b.op.axis]
            for claim in (start >= 0, start <= stop, stop <= extent):
                self.claim(claim)
        asserted = b.args[0] if isinstance(b.op, AssertTrue) else None
        if isinstance(asserted, Literal) and self.is_late(asserted.value):
            self.claim(asserted.value)
            self.atoms[b.outputs[0]] = asserted
            return True
        return False

    def is_late(self, x: Expr) -> bool:
        return not set(self.late).isdisjoint(variables(x))

    def claim(self, claim: Expr) -> None:
        """Note what must hold, unless it follows from what is known or is no matter of data."""
        claim = simplify(claim)
        if not self.is_late(claim) or prove(claim, Facts.of(self.facts)):
            return
        used = variables(claim)
        last = max((k for k, v in enumerate(self.late) if v in used), default=0)
        self.claims.setdefault(self.late[last], []).append(claim)
        self.facts.append(claim)

    def rebuilt(self, b: Binding) -> Binding:
        args = tuple(self.atom(a) for a in b.args)
        op = b.op
        if isinstance(op, BindSymbol) and op.variable in self.claims:
            op = BindSymbol(op.symbol, (*op.where, *self.claims[op.variable]))
        return replace_fields(b, op=op, args=args)
