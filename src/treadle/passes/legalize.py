"""Take operations apart: into simpler ones, then into loop programs."""

from dataclasses import dataclass, field

from treadle.base.errors import LoweringError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, transform
from treadle.ir.analysis import free_variables, symbols
from treadle.ir.calls import CallTensor, FunctionOp
from treadle.ir.graph import Atom, Binding, GraphFunction, Literal, Value
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Function, Module
from treadle.ir.tensor import Buffer, Load, TensorFunction
from treadle.ir.types import TensorType
from treadle.passes.statements import map_expressions


def decompose(module: Module) -> Module:
    """Replace every operation that is made of others by those others, until none is left."""
    return module.map_graph_functions(_decompose_function)


def _decompose_function(function: GraphFunction) -> GraphFunction:
    builder = GraphBuilder(function.name, function.span)
    for value in function.params:
        builder.fresh(value.name)
    atoms: dict[Value, Atom] = {}
    for binding in function.body:
        args = tuple(atoms.get(a, a) if isinstance(a, Value) else a for a in binding.args)
        results = _expand(builder, replace_fields(binding, args=args))
        atoms.update(zip(binding.outputs, results, strict=True))
    results = tuple(atoms.get(a, a) if isinstance(a, Value) else a for a in function.results)
    return replace_fields(function, body=tuple(builder.body), results=results)


def _expand(builder: GraphBuilder, binding: Binding) -> tuple[Atom, ...]:
    """Add a binding to a function under construction, taken apart as far as it goes."""
    scratch = GraphBuilder(builder.name, binding.span)
    parts = binding.op.decompose(*(Traced(scratch, a) for a in binding.args))
    if parts is None:
        outputs = tuple(Value(builder.fresh(v.name), v.type) for v in binding.outputs)
        builder.body.append(replace_fields(binding, outputs=outputs))
        return outputs
    atoms: dict[Value, Atom] = {}
    for part in scratch.body:
        args = tuple(atoms.get(a, a) if isinstance(a, Value) else a for a in part.args)
        atoms.update(
            zip(part.outputs, _expand(builder, replace_fields(part, args=args)), strict=True)
        )
    results = parts if isinstance(parts, tuple) else (parts,)
    return tuple(
        atoms.get(r.atom, r.atom) if isinstance(r.atom, Value) else r.atom for r in results
    )


def legalize(module: Module) -> Module:
    """Replace every operation by a call of its loop program.

    Raises:
        LoweringError: E0410 where an operand's shape is not known, E0411 where an operation has no
            loop program.
    """
    programs = _Programs(set(module.functions))
    functions: list[Function] = []
    for function in module.functions.values():
        if isinstance(function, GraphFunction):
            body = tuple(_legalize_binding(b, programs) for b in function.body)
            functions.append(replace_fields(function, body=body))
        else:
            functions.append(function)
    return module.with_functions([*functions, *programs.functions])


@dataclass(slots=True)
class _Programs:
    """The loop programs so far; equal operations on equal types share one."""

    taken: set[str]
    functions: list[TensorFunction] = field(default_factory=list[TensorFunction])
    known: dict[tuple[object, ...], TensorFunction] = field(
        default_factory=dict[tuple[object, ...], TensorFunction]
    )

    def add(self, key: tuple[object, ...], function: TensorFunction) -> TensorFunction:
        name, number = function.name, 0
        while name in self.taken:
            number += 1
            name = f"{function.name}_{number}"
        self.taken.add(name)
        named: TensorFunction = replace_fields(function, name=name)
        self.functions.append(named)
        self.known[key] = named
        return named


def _legalize_binding(binding: Binding, programs: _Programs) -> Binding:
    if isinstance(binding.op, FunctionOp):
        return binding
    out = tuple(v.type for v in binding.outputs if isinstance(v.type, TensorType))
    key = (binding.op, *(a.value if isinstance(a, Literal) else a.type for a in binding.args), *out)
    function = programs.known.get(key) or programs.add(key, _program(binding))
    args = tuple(a for a in binding.args if not isinstance(a, Literal))
    extra = tuple(p for p in function.params if isinstance(p, Var))
    return replace_fields(binding, op=CallTensor(function.name, out, extra), args=args)


def _program(binding: Binding) -> TensorFunction:
    op = binding.op
    types: list[TensorType] = []
    for a in binding.args:
        if not isinstance(a.type, TensorType) or a.type.shape is None:
            raise _refusal(
                "E0410", binding, f"the shape of an operand of {op.op_name()}() is not known"
            )
        types.append(a.type)
    function = op.lower(*types)
    if function is None:
        raise _refusal("E0411", binding, f"{op.op_name()}() has neither loops nor a decomposition")
    literals = {
        buffer: a.value
        for buffer, a in zip(function.input_buffers, binding.args, strict=True)
        if isinstance(a, Literal)
    }
    function = _inline_literals(function, literals) if literals else function
    function = replace_fields(function, span=binding.span)
    return _with_free_symbols(function)


def _refusal(code: str, binding: Binding, message: str) -> LoweringError:
    place = None if binding.span is None else str(binding.span)
    cure = (
        "give the value a shape with match_cast"
        if code == "E0410"
        else "report this: every operation needs one"
    )
    return LoweringError(code, message, place=place, help=cure)


def _inline_literals(function: TensorFunction, literals: dict[Buffer, Expr]) -> TensorFunction:
    """The program with scalar operands written into it."""

    def visit(x: Expr) -> Expr | None:
        return literals.get(x.buffer) if isinstance(x, Load) else None

    params = tuple(p for p in function.params if p not in literals)
    kept = [j for j, b in enumerate(function.input_buffers) if b not in literals]
    updates = tuple((k, kept.index(j)) for k, j in function.updates)
    body = map_expressions(function.body, lambda e: transform(e, visit))
    return replace_fields(function, params=params, body=body, updates=updates)


def _with_free_symbols(function: TensorFunction) -> TensorFunction:
    """The program with a scalar parameter for each symbol that no dimension of a buffer is."""
    bound = {d for b in function.buffers for d in b.shape if isinstance(d, Var)}
    bound.update(p for p in function.params if isinstance(p, Var))
    used = dict.fromkeys((*symbols(function), *free_variables(function.body)))
    free = tuple(v for v in used if v not in bound)
    return replace_fields(function, params=(*function.params, *free)) if free else function
