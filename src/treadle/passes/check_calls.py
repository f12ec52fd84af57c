"""Where it is not shown that a call's operands have the types that the callee declares, let the
program test it: at the callee's door, when it is called.

A function takes operands of coarser types than its parameters' (Relax, arXiv 2311.02103, §4.1). The
call then names a copy of it that takes what is given, casts it with ``match_cast``, and tests what
the function assumes. A loop program gets its operands cast before the call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from treadle.base.errors import TypeMismatch
from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, Var, int_value, substitute, variables
from treadle.ir.analysis import facts_of, fresh_name
from treadle.ir.calls import AssertTrue, Call, CallTensor, Cond, MatchCast, WhileLoop
from treadle.ir.graph import Atom, Binding, GraphFunction, Literal, Value
from treadle.ir.module import Module
from treadle.ir.signature import Fit, match
from treadle.ir.types import ShapeType, TensorType, Type
from treadle.passes.specialize_calls import substitute_type


def check_calls(module: Module) -> Module:
    """Insert casts and tests around the calls of all graph functions.

    Raises:
        TypeMismatch: E0131 if an operand can never have the type of its parameter.
    """
    work = _CheckCalls(module, set(module.functions))
    changed = [
        work.function(f) if isinstance(f, GraphFunction) else f for f in module.functions.values()
    ]
    if all(a is b for a, b in zip(changed, module.functions.values(), strict=True)):
        return module
    return module.with_functions([*changed, *work.copies])


@dataclass(slots=True)
class _CheckCalls:
    """The module, and copies of its functions that take coarser operands."""

    module: Module
    taken: set[str]
    copies: list[GraphFunction] = field(default_factory=list[GraphFunction])

    def function(self, f: GraphFunction) -> GraphFunction:
        caller = _Caller(self, facts_of(f), {v.name for b in f.body for v in b.outputs})
        caller.names |= {p.name for p in f.params}
        for b in f.body:
            caller.visit(b)
        changed = len(caller.body) != len(f.body) or any(
            a is not b for a, b in zip(caller.body, f.body, strict=True)
        )
        return replace_fields(f, body=tuple(caller.body)) if changed else f

    def callee(self, name: str, args: Sequence[Atom], facts: Facts, place: Binding) -> str:
        """The function to call: the named one, or a copy that tests its operands."""
        f = self.module.graph(name)
        types = [a.type for a in args]
        found = match(types, [p.type for p in f.params], facts=facts)
        _refuse_misfit(found.fit, name, place)
        claims = [substitute(a, found.symbols) for a in f.assumes]
        if found.fit is Fit.SURE and all(prove(c, facts) for c in claims):
            return name
        fresh = fresh_name(f"{name}_checked", self.taken)
        self.taken.add(fresh)
        copy = _checking(f, types, fresh)
        self.copies.append(self.function(copy))
        return fresh


def _refuse_misfit(fit: Fit, name: str, place: Binding) -> None:
    if fit <= Fit.DIFFERENT:
        types = ", ".join(str(a.type) for a in place.args)
        raise TypeMismatch(
            "E0131",
            f"'{name}' never takes ({types})",
            place=None if place.span is None else str(place.span),
            help="pass operands of the types that it declares",
        )


@dataclass(slots=True)
class _Caller:
    """The body of one function while its calls are looked at."""

    work: _CheckCalls
    facts: Facts
    names: set[str]
    body: list[Binding] = field(default_factory=list[Binding])

    def visit(self, b: Binding) -> None:
        op = b.op
        if isinstance(op, Call):
            name = self.work.callee(op.function, b.args, self.facts, b)
            self.call(b, replace_fields(op, function=name) if name != op.function else op)
        elif isinstance(op, Cond):
            self.exchange(b, op, self.named(b, b.args[1:], op, "then", "orelse"))
        elif isinstance(op, WhileLoop):
            carried = tuple(Value("", v.type) for v in b.outputs)
            args = (*carried, *b.args[op.carried :])
            self.exchange(b, op, self.named(b, args, op, "condition", "body"))
        elif isinstance(op, CallTensor):
            self.tensor_call(b, op)
        else:
            self.body.append(b)

    def named(
        self, b: Binding, args: Sequence[Atom], op: Cond | WhileLoop, *fields: str
    ) -> dict[str, str]:
        """The functions that fields of an operation should name."""
        return {f: self.work.callee(getattr(op, f), args, self.facts, b) for f in fields}

    def exchange(self, b: Binding, op: Cond | WhileLoop, names: Mapping[str, str]) -> None:
        if any(getattr(op, f) != name for f, name in names.items()):
            b = replace_fields(b, op=replace_fields(op, **names))
        self.body.append(b)

    def call(self, b: Binding, op: Call) -> None:
        """A call, whose results are cast where the callee's signature says less than the call."""
        f = self.work.module.functions.get(op.function)
        if not isinstance(f, GraphFunction):
            f = next(c for c in self.work.copies if c.name == op.function)
        symbols = match([a.type for a in b.args], [p.type for p in f.params]).symbols
        outputs: list[Value] = []
        casts: list[Binding] = []
        for v, r in zip(b.outputs, f.results, strict=True):
            known = _deduced(r.type, symbols)
            misfit = match((known,), (v.type,), known=variables(*_dims(v.type)), facts=self.facts)
            if misfit.fit <= Fit.DIFFERENT:
                why = f"'{op.function}' gives {known}, which is never {v.type}"
                raise TypeMismatch("E0131", why, place=None if b.span is None else str(b.span))
            if misfit.fit is Fit.SURE or not isinstance(v.type, TensorType):
                outputs.append(v)
                continue
            raw = Value(self.fresh(v.name), known)
            outputs.append(raw)
            casts.append(Binding((v,), MatchCast(v.type), (raw,), b.span))
        if casts:
            op = replace_fields(op, out=tuple(o.type for o in outputs))
        same = op is b.op and not casts
        self.body.append(b if same else replace_fields(b, op=op, outputs=tuple(outputs)))
        self.body.extend(casts)

    def tensor_call(self, b: Binding, op: CallTensor) -> None:
        """The operands of a loop program have its buffers' shapes."""
        f = self.work.module.tensor(op.function)
        wanted = [TensorType(x.shape, x.ndim, x.dtype) for x in f.buffers]
        scalars = [p for p in f.params if isinstance(p, Var)]
        given = [*(a.type for a in b.args), *op.out, ShapeType(op.symbols)]
        found = match(given, [*wanted, ShapeType(tuple(scalars))], facts=self.facts)
        _refuse_misfit(found.fit, op.function, b)
        args = list(b.args)
        for k, (a, w) in enumerate(zip(b.args, wanted, strict=False)):
            dims = tuple(substitute(d, found.symbols) for d in w.dims)
            cast = TensorType(dims, w.ndim, w.dtype)
            known = match((a.type,), (cast,), known=variables(*dims), facts=self.facts)
            if known.fit is not Fit.SURE and not found.open:
                value = Value(self.fresh(f"{f.name}_{k}"), cast)
                self.body.append(Binding((value,), MatchCast(cast), (a,), b.span))
                args[k] = value
        self.claims(found.claims, f.name, b)
        facts = [substitute(x, found.symbols) for x in f.assumes]
        self.claims([x for x in facts if not prove(x, self.facts)], f.name, b)
        self.body.append(b if args == list(b.args) else replace_fields(b, args=tuple(args)))

    def claims(self, claims: Sequence[Expr], callee: str, b: Binding) -> None:
        self.body.extend(assertions(claims, callee, self.fresh, b))

    def fresh(self, hint: str) -> str:
        name = fresh_name(hint, self.names)
        self.names.add(name)
        return name


def assertions(
    claims: Sequence[Expr], callee: str, fresh: Callable[[str], str], place: Binding | GraphFunction
) -> list[Binding]:
    """Bindings that test claims about symbols before a function runs."""
    found: list[Binding] = []
    for claim in claims:
        test = Literal(claim)
        op = AssertTrue(f"'{callee}' needs {claim}")
        found.append(Binding((Value(fresh("holds"), test.type),), op, (test,), place.span))
    return found


def _dims(type_: Type) -> tuple[Expr, ...]:
    return type_.dims if isinstance(type_, ShapeType) else type_.shape or ()


def _deduced(type_: Type, symbols: Mapping[Var, Expr]) -> Type:
    if isinstance(type_, TensorType) and any(v not in symbols for v in variables(*_dims(type_))):
        return TensorType(None, type_.ndim, type_.dtype)
    return substitute_type(type_, symbols)


def _checking(f: GraphFunction, types: Sequence[Type], name: str) -> GraphFunction:
    """A copy of a function that takes operands of given types, and tests them."""
    used = {v for p in f.params for v in variables(*_dims(p.type))}
    own: dict[Expr, Var] = {}
    taken = {p.name for p in f.params} | {v.name for b in f.body for v in b.outputs}

    def fresh(hint: str) -> str:
        found = fresh_name(hint, taken)
        taken.add(found)
        return found

    def dim(d: Expr) -> Expr:
        if int_value(d) is not None:
            return d
        if d not in own:
            symbol = fresh_name(f"{f.name}_{len(own)}", {v.name for v in (*used, *own.values())})
            own[d] = Var(symbol, i64)
        return own[d]

    params: list[Value] = []
    casts: list[Binding] = []
    for p, type_ in zip(f.params, types, strict=True):
        if isinstance(type_, TensorType) and isinstance(p.type, TensorType):
            shape = None if type_.shape is None else tuple(dim(d) for d in type_.shape)
            outer = Value(fresh(f"{p.name}_given"), TensorType(shape, type_.ndim, type_.dtype))
            params.append(outer)
            casts.append(Binding((p,), MatchCast(p.type), (outer,), f.span))
        else:
            params.append(p)
    tests = assertions(f.assumes, f.name, fresh, f)
    return replace_fields(
        f, name=name, params=tuple(params), body=(*casts, *tests, *f.body), assumes=(), inputs=()
    )
