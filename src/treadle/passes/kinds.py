"""What kind of program a tensor function is, inferred from its loops.

After Relax's analysis of operator patterns (arXiv 2311.02103, Alg. 1): only the loop program is
looked at, so a user's own function is treated like any other.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Const, Expr, Var, int_value, variables, walk
from treadle.expr.simplify import simplify
from treadle.expr.terms import split_linear
from treadle.ir.analysis import blocks, loads, statements
from treadle.ir.tensor import ZERO, Block, Buffer, If, Load, Store, TensorFunction


class Kind(IntEnum):
    """From what fuses freely to what does not."""

    ELEMENTWISE = 0
    BROADCAST = 1
    INJECTIVE = 2
    REDUCTION = 3
    CONTRACTION = 4
    OPAQUE = 5


_CHEAP_FAMILIES = frozenset({"arithmetic", "compare", "logic", "select", "convert", "vector"})


@dataclass(frozen=True, slots=True)
class Summary:
    """A function's kind beside what fusion asks of it."""

    kind: Kind
    identity: frozenset[Buffer]
    cheap: bool
    affine_copy: bool
    bordered: frozenset[Buffer] = frozenset()
    """Inputs that end up in the result element by element, with a border around them."""

    @property
    def is_spatial(self) -> bool:
        """Whether this is one block without a reduction, which can be written into its
        consumers.
        """
        return self.kind <= Kind.INJECTIVE


@lru_cache(maxsize=4096)
def summarize(function: TensorFunction) -> Summary:
    """What kind of program ``function`` is."""
    found = blocks(function)
    if (
        function.outputs != 1
        or function.updates
        or not found
        or any(isinstance(s, If) for s in statements(function.body))
    ):
        return Summary(Kind.OPAQUE, frozenset(), False, False)
    if len(found) == 1 and not any(i.kind == "reduce" for i in found[0].iters):
        return _spatial(function, found[0])
    if any(is_contraction(b) for b in found):
        return Summary(Kind.CONTRACTION, frozenset(), False, False)
    if all(_is_complete(b) or _is_reduction(b) for b in found) and any(
        _is_reduction(b) for b in found
    ):
        return Summary(Kind.REDUCTION, frozenset(), False, False)
    return Summary(Kind.OPAQUE, frozenset(), False, False)


def _spatial(function: TensorFunction, block: Block) -> Summary:
    store = only_store(block)
    if store is None or not _is_complete(block):
        return Summary(Kind.OPAQUE, frozenset(), False, False)
    axes = store.indices
    reads = loads(store.value)
    own = place_of_units(block, axes)
    apart = {x.buffer for x in reads if place_of_units(block, x.indices) != own}
    same = frozenset(x.buffer for x in reads) - apart
    kind = Kind.ELEMENTWISE if same else Kind.BROADCAST
    if any(not _is_broadcast(x, axes) for x in reads) or any(x.mask is not None for x in reads):
        kind = Kind.INJECTIVE
    if any(v in axes for v in variables(*_outside_loads(store.value))):
        kind = max(kind, Kind.BROADCAST)
    cheap = all(
        FUNCTIONS[x.fn].family in _CHEAP_FAMILIES for x in walk(store.value) if isinstance(x, Apply)
    )
    cheap = cheap and not any(loads(*x.indices) for x in reads)
    variable = frozenset(v for v in axes if isinstance(v, Var))
    return Summary(kind, same, cheap, is_affine_copy(store, variable), _bordered(store, reads))


def place_of_units(block: Block, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Indices with zero for each axis that has one element only."""
    units = {i.var for i in block.iters if int_value(i.extent) == 1}
    return tuple(ZERO if i in units else i for i in indices)


def _bordered(store: Store, reads: tuple[Load, ...]) -> frozenset[Buffer]:
    """The buffers that a store reads at its own indices less constants, and only inside of
    bounds.
    """
    value = store.value
    if not isinstance(value, Apply) or value.fn != "select":
        return frozenset()
    shifted = {
        x.buffer
        for x in reads
        if x.mask is not None
        and len(x.indices) == len(store.indices)
        and all(
            int_value(simplify(i - j)) is not None
            for i, j in zip(x.indices, store.indices, strict=True)
        )
    }
    return frozenset(b for b in shifted if sum(x.buffer is b for x in reads) == 1)


def _outside_loads(x: Expr) -> tuple[Expr, ...]:
    """The parts of a value that are not below a load."""
    if isinstance(x, Load):
        return ()
    return (x,) if not x.children else tuple(y for c in x.children for y in _outside_loads(c))


def _is_broadcast(load: Load, axes: tuple[Expr, ...]) -> bool:
    """Whether a load uses axes in order, each at most once, and constants elsewhere."""
    positions = [axes.index(i) if i in axes else None for i in load.indices]
    used = [p for p in positions if p is not None]
    rest = [i for i, p in zip(load.indices, positions, strict=True) if p is None]
    return used == sorted(set(used)) and all(int_value(i) is not None for i in rest)


def is_affine_copy(store: Store, axes: frozenset[Var]) -> bool:
    """Whether a store only moves an element, at indices that are linear in ``axes``."""
    value = store.value
    if not isinstance(value, Load) or value.mask is not None:
        return False
    for index in value.indices:
        rest = index
        for axis in [v for v in variables(index) if v in axes]:
            linear = split_linear(rest, axis)
            if (
                linear is None
                or axis in variables(linear[1])
                or any(v in axes for v in variables(linear[0]))
            ):
                return False
            rest = linear[1]
        if any(v in axes for v in variables(rest)):
            return False
    return True


def only_store(block: Block) -> Store | None:
    """The one statement of a block's body, if it is a store without a mask."""
    if len(block.body) != 1 or not isinstance(block.body[0], Store):
        return None
    return block.body[0] if block.body[0].mask is None else None


def _is_complete(block: Block) -> bool:
    """Whether a block writes every point of its spatial domain once, and nothing else."""
    store = only_store(block)
    axes = [i.var for i in block.iters]
    return (
        store is not None
        and not block.init
        and all(i.kind == "spatial" for i in block.iters)
        and len(set(store.indices)) == len(store.indices)
        and all(i in axes for i in store.indices)
        and len(store.indices) == len(axes)
        and not any(x.buffer is store.buffer for x in loads(store.value))
    )


def _is_reduction(block: Block) -> bool:
    """Whether a block combines into each element of its output, starting from an init."""
    store = only_store(block)
    if store is None or not block.init or not isinstance(store.value, Apply):
        return False
    return Load(store.buffer, store.indices) in store.value.args


def is_contraction(block: Block) -> bool:
    """Whether a block sums products of two loads over its reduce axes."""
    return contraction_operands(block) is not None


def contraction_operands(block: Block) -> tuple[Expr, Expr] | None:
    """The two factors that a contraction block sums the products of."""
    store = only_store(block)
    if (
        store is None
        or not block.init
        or not isinstance(store.value, Apply)
        or store.value.fn != "add"
    ):
        return None
    target = Load(store.buffer, store.indices)
    if target not in store.value.args:
        return None
    term = store.value.args[1] if store.value.args[0] is target else store.value.args[0]
    guarded = guarded_term(term)
    term = term if guarded is None else guarded[1]
    if (
        not isinstance(term, Apply)
        or term.fn != "mul"
        or not any(i.kind == "reduce" for i in block.iters)
    ):
        return None
    a, b = term.args
    return (a, b) if _operand(a) is not None and _operand(b) is not None else None


def zero_condition(block: Block) -> Expr | None:
    """The condition under which the terms of a sum are not zero, if it says so."""
    store = only_store(block)
    if store is None or not isinstance(store.value, Apply):
        return None
    found = [g for x in store.value.args if (g := guarded_term(x)) is not None]
    return found[0][0] if found else None


def guarded_term(term: Expr) -> tuple[Expr, Expr] | None:
    """The condition under which a term is not zero, and what it is then, if it says so."""
    if not isinstance(term, Apply) or term.fn != "select":
        return None
    condition, found, zero = term.args
    if loads(condition) or not isinstance(zero, Const) or zero.value != 0:
        return None
    return condition, found


def _operand(x: Expr) -> Load | None:
    """The load that a factor is, maybe converted to a wider type."""
    if isinstance(x, Apply) and x.fn == "cast":
        x = x.args[0]
    return x if isinstance(x, Load) and x.mask is None else None
