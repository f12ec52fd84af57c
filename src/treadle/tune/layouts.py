"""Which axis of a value that passes between kernels lies innermost in memory.

A layout is not a property of operations: every access of a buffer is rewritten with it
(``transform_layout``), so whatever a kernel computes, it can read and write any order. The choice
is made for a whole function at once, since every value has one writer and some readers that want
different things (the global problem of NeoCPU, Liu et al. 2019, §3.3). The values that are
connected through kernels start all plain, or all moved; then each changes on its own, as long as
the estimated time of the kernels around it becomes less; the better of the two ends is taken. What
leaves the function, and what views look at, keeps its order.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from treadle.base.cache import NO_CACHE, DiskCache
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Var, int_value
from treadle.ir.analysis import accesses, blocks, fresh_name
from treadle.ir.calls import CallTensor
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Function, Module
from treadle.ir.parser import parse_function
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.passes.kinds import contraction_operands
from treadle.schedule.index_map import IndexMap
from treadle.schedule.layout import TransformLayout
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.attempt import attempt
from treadle.tune.default import inline_producers
from treadle.tune.digits import separate_digits
from treadle.tune.estimate import estimated_cycles

Order = tuple[int, ...]
"""The axes of a value, outermost in memory first."""

_LEAST_RANK = 3
_GAIN = 0.98
"""A change must save at least this share of what the kernels around a value cost."""


def assign_layouts(module: Module, *, target: Target, cache: DiskCache = NO_CACHE) -> Module:
    """Choose the layouts of the values between kernels in every graph function.

    Choices that ``cache`` holds are not worked out again.
    """
    functions: list[Function] = []
    relaid = _Relaid(module, target, set(module.functions), cache)
    for function in module.functions.values():
        if isinstance(function, GraphFunction):
            function = _known(function, relaid).applied()
        functions.append(function)
    return module.with_functions([*functions, *relaid.made.values()])


def _known(function: GraphFunction, relaid: "_Relaid") -> "_Assignment":
    """The choice for a function, from the cache if that has it."""
    cache = relaid.cache
    callees = (str(relaid.module.functions[name]) for name in _callees(function))
    key = cache.key("layouts", str(function), *callees, *relaid.target.key)
    known = cache.get(key)
    if known is not None:
        return _Assignment.read(function, relaid, json.loads(known))
    found = _Assignment.of(function, relaid)
    cache.put(key, json.dumps(found.written()).encode())
    return found


def _callees(function: GraphFunction) -> list[str]:
    return sorted({b.op.function for b in function.body if isinstance(b.op, CallTensor)})


def channels_last(rank: int) -> Order:
    """The second axis moved to the end."""
    return (0, *range(2, rank), 1)


Key = tuple[str, frozenset[int], tuple[Order | None, ...]]
"""A function, which of its parameters are constants, and the orders of all its parameters."""


@dataclass(frozen=True, slots=True)
class _Version:
    """The buffers of a function that are moved, and what it costs then."""

    moves: tuple[tuple[str, Order], ...]
    cycles: float


@dataclass(slots=True)
class _Relaid:
    """Functions in other layouts, and what they cost."""

    module: Module
    target: Target
    taken: set[str]
    cache: DiskCache
    inlined: dict[tuple[str, frozenset[str]], TensorFunction] = field(
        default_factory=dict[tuple[str, frozenset[str]], TensorFunction]
    )
    versions: dict[Key, _Version] = field(default_factory=dict[Key, _Version])
    made: dict[Key, TensorFunction] = field(default_factory=dict[Key, TensorFunction])

    def version(self, key: Key) -> _Version:
        """The function whose parameters lie in these orders, its temporaries as suits it."""
        if key not in self.versions:
            name, constants, orders = key
            plain = self.module.tensor(name)
            moves = [
                (buffer.name, order)
                for buffer, order in zip(plain.buffers, orders, strict=True)
                if order is not None
            ]
            fixed = frozenset(plain.buffers[i].name for i in constants)
            compact = _moved(self.compact(name, fixed), moves)
            self.versions[key] = self.settled(compact, _temporaries(plain), moves, fixed)
        return self.versions[key]

    def compact(self, name: str, constants: frozenset[str]) -> TensorFunction:
        """The function as its schedule begins."""
        if (name, constants) not in self.inlined:
            s = Schedule(self.module.tensor(name))
            inline_producers(s)
            for b in blocks(s.function):
                if contraction_operands(b) is not None:
                    attempt(s, lambda t, n=b.name: separate_digits(t, n, constants))
            self.inlined[name, constants] = s.function
        return self.inlined[name, constants]

    def settled(
        self,
        function: TensorFunction,
        temporaries: tuple[Buffer, ...],
        moves: list[tuple[str, Order]],
        constants: frozenset[str],
    ) -> _Version:
        """The function with the best order for each of its temporaries that is still there."""
        best = self.cycles(function, constants)
        left = _temporaries(function)
        for buffer in (b for b in temporaries if b in left):
            change = (buffer.name, channels_last(buffer.ndim))
            trial = _moved(function, [change])
            cycles = self.cycles(trial, constants)
            if cycles < best:
                function, best = trial, cycles
                moves.append(change)
        return _Version(tuple(moves), best)

    def cycles(self, function: TensorFunction, constants: frozenset[str]) -> float:
        fixed = frozenset(b for b in function.buffers if b.name in constants)
        return estimated_cycles(function, fixed, self.target)

    def named(self, key: Key) -> str:
        """The name of the function in these orders, which becomes part of the module."""
        moves = self.version(key).moves
        if not moves:
            return key[0]
        if key not in self.made:
            fresh = fresh_name(f"{key[0]}_last", self.taken)
            self.taken.add(fresh)
            function = self.moved(self.module.tensor(key[0]), moves)
            self.made[key] = replace_fields(function, name=fresh)
        return self.made[key].name

    def moved(
        self, function: TensorFunction, moves: tuple[tuple[str, Order], ...]
    ) -> TensorFunction:
        """The function over moved buffers, from the cache if that has it."""
        key = self.cache.key("moved", str(function), str(moves))
        known = self.cache.get(key)
        found = None if known is None else parse_function(known.decode())
        if isinstance(found, TensorFunction):
            return replace_fields(found, span=function.span)
        result = _moved(function, moves)
        self.cache.put(key, str(result).encode())
        return result


def _temporaries(function: TensorFunction) -> tuple[Buffer, ...]:
    own = dict.fromkeys(a.buffer for a in accesses(function.body))
    return tuple(b for b in own if b not in function.buffers and b.ndim >= _LEAST_RANK)


def _moved(function: TensorFunction, moves: Iterable[tuple[str, Order]]) -> TensorFunction:
    for name, order in moves:
        params = tuple(f"d{i}" for i in range(len(order)))
        layout = IndexMap(params, tuple(Var(params[axis]) for axis in order))
        function = TransformLayout(name, layout).apply(function)
    return function


@dataclass(slots=True)
class _Assignment:
    """The choice for one graph function: which of its free values are moved."""

    function: GraphFunction
    relaid: _Relaid
    calls: dict[Value, list[Binding]]
    moved: set[Value] = field(default_factory=set[Value])

    @staticmethod
    def of(function: GraphFunction, relaid: _Relaid) -> "_Assignment":
        """The best choice that is found."""
        calls = _free_values(function, relaid.module)
        self = _Assignment(function, relaid, calls)
        for part in _connected(calls):
            self.settle(part)
        return self

    def written(self) -> dict[str, object]:
        """The choice as data: the values that are moved, and what moves in each call."""
        calls = [b for b in self.function.body if isinstance(b.op, CallTensor)]
        return {
            "values": sorted(v.name for v in self.moved),
            "moves": [list(self.relaid.version(self.key(b)).moves) for b in calls],
        }

    @staticmethod
    def read(
        function: GraphFunction, relaid: _Relaid, data: dict[str, list[list[list[object]]]]
    ) -> "_Assignment":
        """The choice that ``written`` wrote."""
        self = _Assignment(function, relaid, {})
        names = set(map(str, data["values"]))
        self.moved = {v for b in function.body for v in b.outputs if v.name in names}
        calls = [b for b in function.body if isinstance(b.op, CallTensor)]
        for b, moves in zip(calls, data["moves"], strict=True):
            known = tuple((str(name), _order(order)) for name, order in moves)
            relaid.versions[self.key(b)] = _Version(known, 0.0)
        return self

    def settle(self, part: set[Value]) -> None:
        """Choose for values that are connected."""
        around = list(dict.fromkeys(b for v in self.calls if v in part for b in self.calls[v]))
        ends: list[tuple[float, set[Value]]] = []
        for start in (set[Value](), part):
            self.moved = self.moved - part | start
            for value in self.calls:
                if value in part:
                    self.try_moving(value)
            ends.append((sum(self.cost(b) for b in around), set(self.moved)))
        (plain, still), (moved, changed) = ends
        # What moves something already has no claim to stay.
        least = plain if still & part else _GAIN * plain
        self.moved = changed if moved < least else still

    def try_moving(self, value: Value) -> None:
        """Move a value, or move it back, if the calls around it become cheaper."""
        around = self.calls[value]
        before = sum(self.cost(b) for b in around)
        self.moved ^= {value}
        if sum(self.cost(b) for b in around) >= _GAIN * before:
            self.moved ^= {value}

    def cost(self, binding: Binding) -> float:
        return self.relaid.version(self.key(binding)).cycles

    def key(self, binding: Binding) -> Key:
        op = binding.op
        assert isinstance(op, CallTensor)
        atoms: tuple[Atom, ...] = (*binding.args, *binding.outputs)
        constants = frozenset(i for i, a in enumerate(atoms) if isinstance(a, ConstantRef))
        return op.function, constants, tuple(self.order(a) for a in atoms)

    def order(self, a: Atom) -> Order | None:
        if not isinstance(a, Value) or a not in self.moved or not isinstance(a.type, TensorType):
            return None
        return channels_last(a.type.ndim)

    def applied(self) -> GraphFunction:
        """The function over moved values, calling functions that know them so."""
        if not self.moved:
            return self.function
        renewed = {v: Value(v.name, _moved_type(v)) for v in self.moved}
        body = tuple(self.call(b, renewed) for b in self.function.body)
        return replace_fields(self.function, body=body)

    def call(self, binding: Binding, renewed: dict[Value, Value]) -> Binding:
        if not isinstance(binding.op, CallTensor):
            return binding
        args = tuple(renewed.get(a, a) if isinstance(a, Value) else a for a in binding.args)
        outputs = tuple(renewed.get(v, v) for v in binding.outputs)
        out = tuple(v.type for v in outputs if isinstance(v.type, TensorType))
        op = replace_fields(binding.op, function=self.relaid.named(self.key(binding)), out=out)
        return replace_fields(binding, op=op, args=args, outputs=outputs)


def _order(data: object) -> Order:
    assert isinstance(data, list)
    return tuple(int(str(axis)) for axis in cast(list[object], data))


def _moved_type(value: Value) -> TensorType:
    assert isinstance(value.type, TensorType)
    dims = value.type.dims
    return tensor([dims[axis] for axis in channels_last(len(dims))], value.type.dtype)


def _free_values(function: GraphFunction, module: Module) -> dict[Value, list[Binding]]:
    """The values that only calls of tensor functions write and read, with those calls; but not
    what is updated in its place.
    """
    calls: dict[Value, list[Binding]] = {}
    fixed: set[Value] = {a for a in (*function.params, *function.results) if isinstance(a, Value)}
    for b in function.body:
        values = [a for a in (*b.args, *b.outputs) if isinstance(a, Value)]
        if not isinstance(b.op, CallTensor) or module.tensor(b.op.function).updates:
            fixed.update(values)
        for v in dict.fromkeys(values):
            calls.setdefault(v, []).append(b)
    return {v: found for v, found in calls.items() if v not in fixed and _is_wide(v)}


def _is_wide(value: Value) -> bool:
    """Whether the order of a value's axes matters."""
    type_ = value.type
    if not isinstance(type_, TensorType) or type_.shape is None or type_.ndim < _LEAST_RANK:
        return False
    return int_value(type_.dims[1]) != 1 and any(int_value(d) != 1 for d in type_.dims[2:])


def _connected(calls: dict[Value, list[Binding]]) -> list[set[Value]]:
    """The values in groups that calls connect."""
    touched: dict[Binding, list[Value]] = {}
    for value, bindings in calls.items():
        for b in bindings:
            touched.setdefault(b, []).append(value)
    parts: list[set[Value]] = []
    left = dict.fromkeys(calls)
    while left:
        part: set[Value] = set()
        reached = [next(iter(left))]
        while reached:
            value = reached.pop()
            if value in left:
                del left[value]
                part.add(value)
                reached += [v for b in calls[value] for v in touched[b]]
        parts.append(part)
    return parts
