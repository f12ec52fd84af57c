"""Which values of a graph function lie in the memory of another: views of it and of parts of it,
operands of a concatenation, which are made in their places, and results of kernels that may
overwrite an operand which nobody needs any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.expr.scalar import Expr, as_expr, const
from treadle.expr.simplify import simplify
from treadle.ir.calls import AssertTrue, BindSymbol, CallLibrary, CallTensor, MatchCast
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Concat, Slice
from treadle.passes.inplace import may_overwrite
from treadle.passes.plan_memory import byte_size


@dataclass(frozen=True, slots=True)
class Place:
    """``offset`` bytes into the memory of ``owner``, which has memory of its own."""

    owner: Value | ConstantRef
    offset: Expr


@dataclass(slots=True)
class SharedMemory:
    """The places of values that have no memory of their own, and for each value that has some the
    number of the binding that needs it last.
    """

    function: GraphFunction
    places: dict[Value, Place] = field(default_factory=dict[Value, Place])
    last: dict[Value, int] = field(default_factory=dict[Value, int])

    def place(self, a: Value | ConstantRef) -> Place:
        """Where a value lies."""
        found = Place(a, const(0))
        while isinstance(found.owner, Value) and found.owner in self.places:
            outer = self.places[found.owner]
            found = Place(outer.owner, simplify(outer.offset + found.offset))
        return found

    def owner(self, a: Value) -> Value | ConstantRef:
        """Whose memory a value lies in."""
        return self.place(a).owner

    def is_free(self, memory: Value, result: Value) -> bool:
        """Whether nobody needs what lies in ``memory`` any more when ``result`` is made, which has
        memory of its own.
        """
        owner = self.owner(result)
        makes = (
            i
            for i, b in enumerate(self.function.body)
            if any(self.owner(v) is owner for v in b.outputs)
        )
        return owner is not memory and self.last.get(memory, -1) < next(makes, -1)

    def note_last(self) -> None:
        """Find where each owner is needed last; after the end what the function returns is."""
        uses = [(i, a) for i, b in enumerate(self.function.body) for a in (*b.args, *b.outputs)]
        uses += [(len(self.function.body), r) for r in self.function.results]
        self.last = {}
        for i, a in uses:
            owner = self.owner(a) if isinstance(a, Value) else None
            if isinstance(owner, Value):
                self.last[owner] = i


def shared_memory(module: Module, function: GraphFunction) -> SharedMemory:
    """The values that share memory in a function whose calls are calls of tensor functions."""
    shared = SharedMemory(function)
    for binding in function.body:
        _view(shared, binding)
    _join(shared)
    shared.note_last()
    own = {v for b in function.body for v in b.outputs if v not in shared.places}
    given = _donated(module, shared)
    for i, binding in enumerate(function.body):
        taken: set[Value] = set()
        for k, y in enumerate(binding.outputs):
            for x in _overwritten(module, binding, k, shared) if y in own else ():
                fits = y in given[x] if x in given else x in own
                if fits and x not in taken and shared.last[x] == i:
                    shared.places[y] = Place(x, const(0))
                    shared.last[x] = shared.last.pop(y)
                    taken.add(x)
                    break
    return shared


def _view(shared: SharedMemory, binding: Binding) -> None:
    """Note the place of a view."""
    op, out = binding.op, binding.outputs[0]
    source = binding.args[0] if binding.args else None
    if not isinstance(source, Value | ConstantRef):
        return
    if isinstance(op, Slice):
        start = as_expr(op.start) * _dtype_bytes(out)
        shared.places[out] = Place(source, simplify(start))
    elif isinstance(op, Reshape | MatchCast) or (
        isinstance(op, AssertTrue | BindSymbol) and out not in shared.function.results
    ):
        shared.places[out] = Place(source, const(0))


def _join(shared: SharedMemory) -> None:
    """Give the operands of concatenations places in the results, where they are made here and
    nowhere else.
    """
    made = {
        v
        for b in shared.function.body
        if isinstance(b.op, CallTensor | CallLibrary | Concat)
        for v in b.outputs
    }
    made -= {shared.owner(r) for r in shared.function.results if isinstance(r, Value)}
    for binding in shared.function.body:
        if isinstance(binding.op, Concat):
            for a, offset in joined_parts(binding):
                owner = shared.owner(a) if isinstance(a, Value) else None
                if owner in made and isinstance(owner, Value) and size_of(owner) is size_of(a):
                    shared.places[owner] = Place(binding.outputs[0], offset)
                    made.discard(owner)


def joined_parts(binding: Binding) -> list[tuple[Value | ConstantRef, Expr]]:
    """The operands of a concatenation of rows, and the bytes before each."""
    found: list[tuple[Value | ConstantRef, Expr]] = []
    offset: Expr = const(0)
    for a in binding.args:
        if not isinstance(a, Value | ConstantRef):
            raise InternalError(f"an operand without memory reached the plan: {a}")
        found.append((a, offset))
        offset = simplify(offset + size_of(a))
    return found


def _overwritten(
    module: Module, binding: Binding, result: int, shared: SharedMemory
) -> Iterator[Value]:
    """The operands of a call in whose memory a result of it may be made."""
    if not isinstance(binding.op, CallTensor):
        return
    callee, y = module.tensor(binding.op.function), binding.outputs[result]
    updated = dict(callee.updates)
    args = [shared.owner(a) if isinstance(a, Value) else a for a in binding.args]
    for j, x in enumerate(args):
        if (
            isinstance(x, Value)
            and args.count(x) == 1
            and size_of(x) is size_of(y)
            and (updated[result] == j if result in updated else may_overwrite(callee, j, result))
        ):
            yield x


def _donated(module: Module, shared: SharedMemory) -> dict[Value, set[Value]]:
    """For each donated parameter the values that may lie in its memory: those that lead, each made
    in the place of the one before, to the result that will.
    """
    function = shared.function
    makers = {v: (b, k) for b in function.body for k, v in enumerate(b.outputs)}
    ends = {shared.owner(r) for r in function.results if isinstance(r, Value)}

    def line(v: Value, start: Value) -> set[Value] | None:
        if v is start:
            return set()
        if v not in makers:
            return None
        for x in _overwritten(module, *makers[v], shared):
            found = None if x in ends else line(x, start)
            if found is not None:
                return found | {v}
        return None

    found: dict[Value, set[Value]] = {}
    for k, j in function.donated:
        result, param = function.results[k], function.params[j]
        owner = shared.owner(result) if isinstance(result, Value) else None
        if isinstance(owner, Value):
            found[param] = line(owner, param) or set()
    return found


def size_of(a: Atom) -> Expr:
    """The bytes of a value.

    Raises:
        InternalError: if it is no tensor of known shape.
    """
    if not isinstance(a.type, TensorType):
        raise InternalError(f"{a} has no memory")
    return byte_size(a.type)


def _dtype_bytes(a: Value) -> int:
    if not isinstance(a.type, TensorType):
        raise InternalError(f"{a.name} has no memory: {a.type}")
    return a.type.dtype.bytes
