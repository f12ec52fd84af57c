"""Split what is as large as values say into a count, which becomes a symbol, and the rest."""

from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import variables
from treadle.ir.analysis import type_exprs
from treadle.ir.calls import MatchCast
from treadle.ir.graph import Atom, Binding, GraphFunction, Value
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.ir.verify.graph import field_exprs
from treadle.ops._sizes import DataSized
from treadle.passes.canonicalize import canonicalize
from treadle.passes.deduce_types import is_coarse, result_types, written


def bind_sizes(module: Module) -> Module:
    """Take operations whose results' sizes depend on values apart, so that all dimensions are
    expressions over symbols, and deduce the types of what uses the results again.
    """
    if not any(_is_data_sized(f) for f in module.graph_functions):
        return module
    # Equal masks, and equal lists of their elements, become one: so do their sizes.
    merged = canonicalize(module)
    return merged.map_graph_functions(
        lambda f: _BindSizes(merged, f).run() if _is_data_sized(f) else f
    )


def _is_data_sized(function: GraphFunction) -> bool:
    return any(isinstance(b.op, DataSized) for b in function.body)


@dataclass(slots=True)
class _BindSizes:
    """One graph function, rebuilt from top to bottom; ``atoms`` are what values have become."""

    module: Module
    function: GraphFunction
    builder: GraphBuilder = field(init=False)
    atoms: dict[Value, Atom] = field(default_factory=dict[Value, Atom])

    def run(self) -> GraphFunction:
        f = self.function
        self.builder = GraphBuilder(f.name, f.span)
        for name in _names(f):
            self.builder.fresh(name)
        for binding in f.body:
            self.visit(binding)
        results = tuple(self.atom(r) for r in f.results)
        return replace_fields(f, body=tuple(self.builder.body), results=results)

    def atom(self, a: Atom) -> Atom:
        return self.atoms.get(a, a) if isinstance(a, Value) else a

    def visit(self, binding: Binding) -> None:
        args = tuple(self.atom(a) for a in binding.args)
        if isinstance(binding.op, DataSized) and all(_is_known(a) for a in args):
            self.builder.span = binding.span
            parts = binding.op.decompose(*(Traced(self.builder, a) for a in args))
            results = parts if isinstance(parts, tuple) else (parts,)
            self.atoms.update(zip(binding.outputs, (r.atom for r in results), strict=True))
        elif args == binding.args:
            self.builder.body.append(binding)
        else:
            self.builder.body.append(self.deduced(binding, args))

    def deduced(self, binding: Binding, args: tuple[Atom, ...]) -> Binding:
        """An operation on operands of finer types; what its results are now known to be."""
        outputs = list(binding.outputs)
        types = result_types(binding, args, self.module)
        for k, (old, new) in enumerate(zip(outputs, types, strict=True)):
            if is_coarse(old.type) and new != old.type:
                outputs[k] = Value(old.name, new)
                self.atoms[old] = outputs[k]
        op = written(binding.op, tuple(v.type for v in outputs))
        return replace_fields(binding, outputs=tuple(outputs), args=args, op=op)


def _is_known(a: Atom) -> bool:
    return isinstance(a.type, TensorType) and not is_coarse(a.type)


def _names(f: GraphFunction) -> dict[str, None]:
    """The names of a function's values and symbols."""
    values = (*f.params, *(v for b in f.body for v in b.outputs))
    exprs = [e for v in values for e in type_exprs(v.type)]
    exprs += [e for b in f.body if isinstance(b.op, MatchCast) for e in field_exprs(b.op)]
    return dict.fromkeys((*(v.name for v in values), *(v.name for v in variables(*exprs))))
