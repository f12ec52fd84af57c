"""Fold constants, share equal computations, drop what nobody uses."""

from dataclasses import dataclass, field
from itertools import count

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Const, Expr
from treadle.ir.calls import FunctionOp
from treadle.ir.effects import Effect, effect_of, effects
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, Value
from treadle.ir.module import Constant, Module
from treadle.ir.op import Op
from treadle.ir.types import TensorType

FOLD_BYTES = 1 << 20
"""A folded constant may always be this large; a larger one only if it is no larger than its
operands.
"""


def canonicalize(module: Module) -> Module:
    """Evaluate what depends on constants only, merge equal bindings, remove dead bindings and
    constants.
    """
    constants = dict(module.constants)
    names = _Names(set(constants))
    known = effects(module)
    functions = {
        name: _Canonicalize(f, constants, names, known).run() if isinstance(f, GraphFunction) else f
        for name, f in module.functions.items()
    }
    used = {
        a.name
        for f in functions.values()
        if isinstance(f, GraphFunction)
        for a in (*(a for b in f.body for a in b.args), *f.results)
        if isinstance(a, ConstantRef)
    }
    return Module(functions, {name: c for name, c in constants.items() if name in used})


@dataclass(slots=True)
class _Names:
    taken: set[str]

    def fresh(self, hint: str) -> str:
        name = next(
            n for i in count() if (n := hint if i == 0 else f"{hint}_{i}") not in self.taken
        )
        self.taken.add(name)
        return name


@dataclass(slots=True)
class _Canonicalize:
    """One graph function; folded constants are added to the module's."""

    function: GraphFunction
    constants: dict[str, Constant]
    names: _Names
    effects: dict[str, Effect]
    atoms: dict[Value, Atom] = field(default_factory=dict[Value, Atom])
    seen: dict[tuple[object, ...], tuple[Value, ...]] = field(
        default_factory=dict[tuple[object, ...], tuple[Value, ...]]
    )
    body: list[Binding] = field(default_factory=list[Binding])

    def run(self) -> GraphFunction:
        for binding in self.function.body:
            self.visit(binding)
        results = tuple(self.atom(a) for a in self.function.results)
        live = live_bindings(self.body, results, self.effects)
        return replace_fields(self.function, body=live, results=results)

    def atom(self, a: Atom) -> Atom:
        return self.atoms.get(a, a) if isinstance(a, Value) else a

    def visit(self, binding: Binding) -> None:
        args = tuple(self.atom(a) for a in binding.args)
        folded = self.fold(binding, args)
        if folded is not None:
            self.atoms.update(zip(binding.outputs, folded, strict=True))
            return
        key = (binding.op, *(atom_key(a) for a in args))
        same = self.seen.get(key)
        if same is not None and effect_of(binding.op, self.effects) is not Effect.IMPURE:
            self.atoms.update(zip(binding.outputs, same, strict=True))
            return
        self.seen[key] = binding.outputs
        self.body.append(replace_fields(binding, args=args))

    def fold(self, binding: Binding, args: tuple[Atom, ...]) -> tuple[Atom, ...] | None:
        """The constants that a binding computes; ``None`` if it depends on more, or would take too
        much room.
        """
        types = [v.type for v in binding.outputs]
        if isinstance(binding.op, FunctionOp) or _has_symbols(binding.op):
            return None
        if not all(isinstance(t, TensorType) and _size(t) is not None for t in types):
            return None
        arrays = [self.known(a) for a in args]
        if any(a is None for a in arrays):
            return None
        operands = [a for a in arrays if a is not None]
        room = max(FOLD_BYTES, sum(a.nbytes for a in operands))
        if sum(_size(t) or 0 for t in types if isinstance(t, TensorType)) > room:
            return None
        with np.errstate(all="ignore"):
            results = binding.op.reference(*operands)
        values = results if isinstance(results, tuple) else (results,)
        return tuple(self.constant(v, a) for v, a in zip(binding.outputs, values, strict=True))

    def known(self, a: Atom) -> np.ndarray | None:
        if isinstance(a, ConstantRef):
            return self.constants[a.name].array
        if isinstance(a, Literal) and isinstance(a.value, Const):
            return np.asarray(a.value.value, a.value.dtype.numpy)
        return None

    def constant(self, value: Value, array: np.ndarray) -> Atom:
        assert isinstance(value.type, TensorType)
        # A permutation stays a view: weights are large, and are packed later on.
        array = np.asarray(array, value.type.dtype.numpy)
        if array.ndim == 0:
            return Literal(Const(array.item(), value.type.dtype))
        name = self.names.fresh(value.name)
        self.constants[name] = Constant(value.type, array)
        return ConstantRef(name, value.type)


def _has_symbols(op: Op) -> bool:
    def symbolic(x: object) -> bool:
        if isinstance(x, tuple):
            return any(symbolic(y) for y in x)
        return isinstance(x, Expr) and not isinstance(x, Const)

    return any(symbolic(getattr(op, name)) for name in getattr(op, "__dataclass_fields__", ()))


def _size(type_: TensorType) -> int | None:
    """Bytes of a tensor of constant shape."""
    if type_.shape is None:
        return None
    size = type_.dtype.bytes
    for d in type_.shape:
        if not isinstance(d, Const):
            return None
        size *= int(d.value)
    return size


def atom_key(a: Atom) -> object:
    """What makes two operands the same."""
    if isinstance(a, Value):
        return a
    if isinstance(a, ConstantRef):
        return ("constant", a.name)
    if isinstance(a, Literal):
        return ("literal", a.value)
    return ("shape", a.dims)


def live_bindings(
    body: list[Binding], results: tuple[Atom, ...], functions: dict[str, Effect]
) -> tuple[Binding, ...]:
    """The bindings that the results depend on, in order, and those that have an effect, where those
    of functions are given.
    """
    needed = {a for a in results if isinstance(a, Value)}
    live: list[Binding] = []
    for binding in reversed(body):
        if any(v in needed for v in binding.outputs) or effect_of(binding.op, functions):
            live.append(binding)
            needed.update(a for a in binding.args if isinstance(a, Value))
    return tuple(reversed(live))
