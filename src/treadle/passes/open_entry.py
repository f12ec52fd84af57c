"""Let the entry take what callers can give: tensors whose shapes tell their symbols.

A parameter of which only the rank is known gets a symbol for each dimension. A parameter that is a
shape becomes a tensor of its numbers, which bind the shape's symbols when the program runs. A
dimension from which symbols cannot be found is taken as it comes, and cast.
"""

from dataclasses import dataclass, field

from treadle.base.errors import LoweringError
from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, Var, eq, variables
from treadle.ir.analysis import fresh_name, type_exprs
from treadle.ir.calls import BindSymbol, MatchCast
from treadle.ir.graph import Atom, Binding, GraphFunction, ShapeLiteral, Value
from treadle.ir.module import Module
from treadle.ir.op import Op
from treadle.ir.signature import solve
from treadle.ir.types import ShapeType, TensorType, Type, tensor
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Slice


def open_entry(module: Module, *, entry: str = "main") -> Module:
    """Rewrite the parameters of ``entry`` where callers cannot give them as they are written.

    Raises:
        LoweringError: E0420 if a symbol follows from no input.
    """
    function = module.graph(entry)
    opened = _opened(function)
    if opened is function:
        return module
    functions = (opened if f is function else f for f in module.functions.values())
    return module.with_functions(functions)


def _opened(function: GraphFunction) -> GraphFunction:
    tensors = [p.type for p in function.params if isinstance(p.type, TensorType)]
    dims = [d for t in tensors for d in t.shape or ()]
    told = solve([(d, d) for d in dims]).values
    known = all(t.shape is not None for t in tensors) and len(tensors) == len(function.params)
    if known and all(v in told for v in variables(*dims)):
        return function
    work = _Opening(function, set(told))
    for p in function.params:
        work.param(p)
    work.check_found()
    params = tuple(work.params)
    return replace_fields(
        function,
        params=params,
        body=(*work.bound, *work.casts, *(_exchanged(b, work.atoms) for b in function.body)),
        results=tuple(work.atoms.get(r, r) for r in function.results),
        assumes=tuple(a for a in function.assumes if work.told.issuperset(variables(a))),
        inputs=function.input_names,
    )


def _exchanged(b: Binding, atoms: dict[Atom, Atom]) -> Binding:
    return replace_fields(b, args=tuple(atoms.get(a, a) for a in b.args))


@dataclass(slots=True)
class _Opening:
    """One entry; ``told`` are the symbols that shapes of tensors tell."""

    function: GraphFunction
    told: set[Var]
    params: list[Value] = field(default_factory=list[Value])
    bound: list[Binding] = field(default_factory=list[Binding])
    casts: list[Binding] = field(default_factory=list[Binding])
    atoms: dict[Atom, Atom] = field(default_factory=dict[Atom, Atom])
    late: set[Var] = field(default_factory=set[Var])
    names: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        f = self.function
        self.names.update(v.name for v in (*f.params, *(v for b in f.body for v in b.outputs)))
        dims = [d for p in f.params for d in type_exprs(p.type)]
        self.names.update(v.name for v in variables(*dims))

    def fresh(self, hint: str) -> str:
        name = fresh_name(hint, self.names)
        self.names.add(name)
        return name

    def param(self, p: Value) -> None:
        if isinstance(p.type, ShapeType):
            self.shape(p, p.type)
            return
        if p.type.shape is not None and self.told.issuperset(variables(*p.type.shape)):
            self.params.append(p)
            return
        dims = tuple(
            self.dim(p, axis, d) for axis, d in enumerate(p.type.shape or [None] * p.type.ndim)
        )
        if p.type.shape is None:
            taken = Value(p.name, TensorType(dims, p.type.ndim, p.type.dtype))
            self.atoms[p] = taken
        else:
            taken = Value(
                self.fresh(f"{p.name}_given"), TensorType(dims, p.type.ndim, p.type.dtype)
            )
            self.casts.append(Binding((p,), MatchCast(p.type), (taken,), self.function.span))
        self.params.append(taken)

    def dim(self, p: Value, axis: int, written: Expr | None) -> Expr:
        """A dimension as callers give it."""
        if written is not None and self.told.issuperset(variables(written)):
            return written
        symbol = Var(self.fresh(f"{p.name}_{axis}"), i64)
        self.told.add(symbol)
        return symbol

    def shape(self, p: Value, type_: ShapeType) -> None:
        """Numbers that bind the symbols of a shape; a dimension that is known is tested."""
        taken = Value(p.name, tensor((len(type_.dims),), i64))
        self.params.append(taken)
        self.atoms[p] = ShapeLiteral(type_.dims)
        for k, d in enumerate(type_.dims):
            row = self.bind(Slice(0, k, k + 1), taken, tensor((1,), i64))
            number = self.bind(Reshape(()), row, tensor((), i64))
            self.bind(self.size(d), number, tensor((), i64))

    def size(self, d: Expr) -> BindSymbol:
        if isinstance(d, Var) and d not in self.told | self.late:
            self.late.add(d)
            return BindSymbol(d, (d >= 0, *self.assumed()))
        symbol = Var(self.fresh("size"), i64)
        return BindSymbol(symbol, (eq(symbol, d),))

    def assumed(self) -> tuple[Expr, ...]:
        """What the function assumes of symbols that are all known for the first time now."""
        known = self.told | self.late
        written = {c for b in self.bound if isinstance(b.op, BindSymbol) for c in b.op.where}
        return tuple(
            a
            for a in self.function.assumes
            if a not in written and known.issuperset(used := set(variables(a))) and used & self.late
        )

    def bind(self, op: Op, a: Value, type_: Type) -> Value:
        value = Value(self.fresh(f"{a.name}_part"), type_)
        self.bound.append(Binding((value,), op, (a,), self.function.span))
        return value

    def check_found(self) -> None:
        """Refuse symbols of parameters that callers do not tell."""
        dims = [d for p in self.function.params for d in type_exprs(p.type)]
        told = self.told | self.late
        taken = [t.shape or () for t in (p.type for p in self.params) if isinstance(t, TensorType)]
        pairs = [(d, d) for d in dims]
        found = solve(pairs, (*told, *variables(*(d for t in taken for d in t)))).values
        missing = [v for v in variables(*dims) if v not in found]
        if missing:
            raise LoweringError(
                "E0420",
                f"the symbol '{missing[0]}' does not follow from the inputs of"
                f" '{self.function.name}'",
                help="give the function a parameter with this dimension",
            )
