"""Turn ``match_cast`` into what it says of symbols; only what the program has to test while it runs
stays.

A cast in the entry always runs, so what it says holds in the whole function: a symbol of the
signature that the cast pins down is exchanged for what it is (``n`` for ``2 * m``), and the checks
of the inputs do the rest. Elsewhere a cast stays where it stands if a claim is left to test: the
result lies in the operand's memory, and the claim is tested before it is used.
"""

from collections.abc import Mapping

from treadle.base.errors import LoweringError, TypeMismatch
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import prove
from treadle.expr.scalar import Const, Expr, Var, eq, int_value, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import bound_symbols, facts_of, fresh_name, shape_symbols
from treadle.ir.calls import AssertTrue, BindSymbol, MatchCast
from treadle.ir.graph import Atom, Binding, GraphFunction, Literal, Value
from treadle.ir.module import Module
from treadle.ir.signature import solve
from treadle.ir.types import TensorType
from treadle.passes.check_calls import assertions
from treadle.passes.specialize_calls import substituted


def resolve_casts(module: Module, *, entry: str = "main") -> Module:
    """Remove every ``match_cast`` that is shown to hold, or that the inputs' shapes decide.

    Raises:
        LoweringError: E0430 if only the rank of the operand is known.
        TypeMismatch: E0131 if the assertion can never hold.
    """
    return module.map_graph_functions(lambda f: _resolve(f, always=f.name == entry))


def _resolve(function: GraphFunction, *, always: bool) -> GraphFunction:
    """The function with its casts resolved; ``always``: whatever calls it runs all of it."""
    k = 0
    while k < len(function.body):
        cast = function.body[k]
        step = _step(function, cast, always=always) if isinstance(cast.op, MatchCast) else None
        if step is None:
            k += 1
        else:
            function = step
    return function if not always else _with_claims(_with_facts(function))


def _step(function: GraphFunction, cast: Binding, *, always: bool) -> GraphFunction | None:
    """The function a step nearer to one without this cast; ``None`` if the cast has to stay."""
    pairs = _pairs(cast)
    known = _known(function, cast)
    named = {d: a for d, a in pairs if isinstance(d, Var) and d not in known}
    if named:
        return _exchanged(function, named)
    fresh = {v for d, _ in pairs for v in variables(d) if v not in known}
    if not fresh and not _claims(function, pairs):
        return _without(function, cast)
    pinned = _pinned(function, pairs) if always else {}
    found = {v: e for v, e in solve(pairs, known).values.items() if v in fresh}
    if not pinned and found:
        function = _with_sizes(function, cast, found)
    changes = pinned or found
    return _exchanged(function, changes) if changes else None


def _with_sizes(function: GraphFunction, cast: Binding, found: Mapping[Var, Expr]) -> GraphFunction:
    """The function that tests, before a cast, that the symbols it finds are sizes."""
    facts = facts_of(function)
    claims = [x >= 0 for x in found.values() if not prove(x >= 0, facts)]
    taken = {v.name for b in function.body for v in b.outputs} | {p.name for p in function.params}

    def fresh(hint: str) -> str:
        name = fresh_name(hint, taken)
        taken.add(name)
        return name

    tests = assertions(claims, function.name, fresh, cast)
    k = function.body.index(cast)
    return replace_fields(function, body=(*function.body[:k], *tests, *function.body[k:]))


def _pairs(cast: Binding) -> list[tuple[Expr, Expr]]:
    """The dimensions that a cast says, and what they are."""
    op, source = cast.op, cast.args[0]
    assert isinstance(op, MatchCast)
    place = None if cast.span is None else str(cast.span)
    if op.type.shape is None:
        return []
    if not isinstance(source.type, TensorType) or source.type.shape is None:
        cure = "pass sizes that depend on data as inputs of their own"
        raise LoweringError(
            "E0430", "match_cast of a value of unknown shape", place=place, help=cure
        )
    pairs = list(zip(op.type.shape, source.type.shape, strict=True))
    for dim, actual in pairs:
        if int_value(simplify(dim - actual)) not in (0, None):
            raise TypeMismatch("E0131", f"match_cast: {actual} is never {dim}", place=place)
    return pairs


def _claims(function: GraphFunction, pairs: list[tuple[Expr, Expr]]) -> list[Expr]:
    """What a cast says that is not shown to hold."""
    facts = facts_of(function)
    return [
        eq(d, a) for d, a in pairs if int_value(simplify(d - a)) != 0 and not prove(eq(d, a), facts)
    ]


def _with_facts(function: GraphFunction) -> GraphFunction:
    """The function that assumes what it tests of its inputs' shapes."""
    symbols = set(shape_symbols(function))
    used = {a for b in function.body for a in b.args} | set(function.results)
    tests = {
        b: b.args[0].value
        for b in function.body
        if isinstance(b.op, AssertTrue)
        and isinstance(b.args[0], Literal)
        and b.outputs[0] not in used
        and symbols.issuperset(variables(b.args[0].value))
    }
    if not tests:
        return function
    body = tuple(b for b in function.body if b not in tests)
    known = facts_of(function)
    new = tuple(dict.fromkeys(c for c in tests.values() if not prove(c, known)))
    return replace_fields(function, body=body, assumes=(*function.assumes, *new))


def _with_claims(function: GraphFunction) -> GraphFunction:
    """The function that assumes what its casts say, so that the entry tests it first."""
    casts = [b for b in function.body if isinstance(b.op, MatchCast)]
    symbols = set(shape_symbols(function))
    claims = [c for b in casts for c in _claims(function, _pairs(b))]
    new = [c for c in claims if symbols.issuperset(variables(c))]
    return replace_fields(function, assumes=(*function.assumes, *new)) if new else function


def _known(function: GraphFunction, cast: Binding) -> set[Var]:
    """The symbols that have a meaning before a cast."""
    known = set(shape_symbols(function))
    for b in function.body:
        if b is cast:
            break
        if isinstance(b.op, BindSymbol):
            known.add(b.op.variable)
        for v in b.outputs:
            if isinstance(v.type, TensorType) and v.type.shape is not None:
                known.update(variables(*v.type.shape))
    return known


def _pinned(function: GraphFunction, pairs: list[tuple[Expr, Expr]]) -> dict[Var, Expr]:
    """A symbol of the signature that a cast says to be an expression of others."""
    symbols = set(shape_symbols(function))
    late = set(bound_symbols(function))
    for dim, actual in pairs:
        if late & set(variables(dim, actual)):
            continue
        for symbol, value in ((actual, dim), (dim, actual)):
            if isinstance(symbol, Var) and symbol in symbols and symbol not in variables(value):
                return {symbol: value}
    return {}


def _exchanged(function: GraphFunction, symbols: Mapping[Var, Expr]) -> GraphFunction:
    """The function over other symbols, without assumptions that say nothing any more."""
    changed = substituted(function, symbols)
    assumes = [simplify(a) for a in changed.assumes]
    kept = dict.fromkeys(a for a in assumes if not (isinstance(a, Const) and a.value))
    return replace_fields(changed, assumes=tuple(kept))


def _without(function: GraphFunction, cast: Binding) -> GraphFunction:
    """The function with the operand of a cast in the place of its result."""
    old, new = cast.outputs[0], cast.args[0]
    body = tuple(b for b in function.body if b is not cast)
    results = tuple(new if r is old else r for r in function.results)
    return replace_fields(function, body=_renamed(body, old, new), results=results)


def _renamed(body: tuple[Binding, ...], old: Value, new: Atom) -> tuple[Binding, ...]:
    return tuple(
        replace_fields(b, args=tuple(new if a is old else a for a in b.args)) for b in body
    )
