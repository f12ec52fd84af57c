"""Give memory to the scalars that the host must have in memory."""

from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr
from treadle.ir.calls import AssertTrue, FunctionOp
from treadle.ir.graph import Atom, Binding, GraphFunction, Literal, Value
from treadle.ir.module import Module
from treadle.ops.broadcast import Expand


def materialize(module: Module) -> Module:
    """Replace scalar expressions by values that hold them where a function is called with them or
    returns them: a call passes pointers.
    """
    return module.map_graph_functions(lambda f: _Materialize(f).run())


@dataclass(slots=True)
class _Materialize:
    """One graph function; equal scalars share a value."""

    function: GraphFunction
    names: set[str] = field(default_factory=set[str])
    held: dict[Expr, Value] = field(default_factory=dict[Expr, Value])
    body: list[Binding] = field(default_factory=list[Binding])
    used: set[Atom] = field(default_factory=set[Atom])

    def run(self) -> GraphFunction:
        f = self.function
        self.used.update(*(b.args for b in f.body), f.results)
        self.names.update(v.name for v in f.params)
        self.names.update(v.name for b in f.body for v in b.outputs)
        for b in f.body:
            if isinstance(b.op, FunctionOp) and _has_literal(b.args) and not self.is_claim(b):
                b = replace_fields(b, args=tuple(self.value(a) for a in b.args))
            self.body.append(b)
        if len(self.body) == len(f.body) and not _has_literal(f.results):
            return f
        results = tuple(self.value(r) for r in f.results)
        return replace_fields(f, body=tuple(self.body), results=results)

    def is_claim(self, b: Binding) -> bool:
        """Whether this only tests symbols, which the host does without memory."""
        return isinstance(b.op, AssertTrue) and b.outputs[0] not in self.used

    def value(self, a: Atom) -> Atom:
        if not isinstance(a, Literal):
            return a
        found = self.held.get(a.value)
        if found is None:
            found = self.held[a.value] = Value(self.fresh("scalar"), a.type)
            self.body.append(Binding((found,), Expand(()), (a,)))
        return found

    def fresh(self, hint: str) -> str:
        name, number = hint, 0
        while name in self.names:
            number += 1
            name = f"{hint}_{number}"
        self.names.add(name)
        return name


def _has_literal(atoms: tuple[Atom, ...]) -> bool:
    return any(isinstance(a, Literal) for a in atoms)
