"""Which values of a graph function lie in the memory of another: views of it and of parts of it,
operands of a concatenation, which are made in their places, and results of kernels that may
overwrite an operand which nobody needs any more.
"""

from dataclasses import dataclass, field

from treadle.base.errors import InternalError
from treadle.expr.scalar import Expr, as_expr, const
from treadle.expr.simplify import simplify
from treadle.ir.calls import AssertTrue, CallLibrary, CallTensor
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
    for i, binding in enumerate(function.body):
        for y, x in _replaced(module, binding, shared):
            if x in own and y in own and shared.last[x] == i:
                shared.places[y] = Place(x, const(0))
                shared.last[x] = shared.last.pop(y)
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
    elif isinstance(op, Reshape) or (
        isinstance(op, AssertTrue) and out not in shared.function.results
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


def _replaced(module: Module, binding: Binding, shared: SharedMemory) -> list[tuple[Value, Value]]:
    """The results of a call beside the operands that they may overwrite; no operand twice."""
    if not isinstance(binding.op, CallTensor):
        return []
    callee = module.tensor(binding.op.function)
    args = [shared.owner(a) if isinstance(a, Value) else a for a in binding.args]
    found: dict[Value, Value] = {}
    for k, y in enumerate(binding.outputs):
        for j, x in enumerate(args):
            if (
                isinstance(x, Value)
                and args.count(x) == 1
                and x not in found
                and size_of(x) is size_of(y)
                and may_overwrite(callee, j, k)
            ):
                found[x] = y
                break
    return [(y, x) for x, y in found.items()]


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
