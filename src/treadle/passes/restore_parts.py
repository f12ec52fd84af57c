"""Copies of a run of memory cost nothing: what is cut out of a value becomes a view into it, and
values that are put one after another are made in their places.

Both are known by the loops, once layouts are chosen: along the outermost axis that is not one, a
slice is a run of its operand, and an operand of a concatenation is a run of the result. The calls
become ``slice`` and ``concat`` of the elements in a row, which the memory plan reads.
"""

from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Expr, const, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.analysis import blocks, element_count, facts_of, flat_index, fresh_name, names
from treadle.ir.calls import CallTensor, Cond, WhileLoop
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.tensor import Block, Buffer, Load, TensorFunction
from treadle.ir.types import TensorType, tensor
from treadle.ops.reshape import Reshape
from treadle.ops.shape import Concat, Slice
from treadle.passes.fuse import callee_symbols
from treadle.passes.kinds import only_store


def restore_parts(module: Module) -> Module:
    """Replace calls that copy runs of memory where a view, or the place of a producer, does."""
    known = {f.name: found for f in module.tensor_functions if (found := runs_of(f)) is not None}
    if not known:
        return module
    return module.map_graph_functions(lambda f: _Restore(module, f, known).run())


@dataclass(frozen=True, slots=True)
class Run:
    """``size`` elements of operand number ``operand`` from ``source`` on that become those of the
    result from ``target`` on.
    """

    operand: int
    source: Expr
    target: Expr
    size: Expr


def runs_of(function: TensorFunction) -> tuple[Run, ...] | None:
    """The runs of memory that a function puts one after another to its result, if it does only
    that.
    """
    if function.outputs != 1 or len(blocks(function)) != len(function.body):
        return None
    facts = facts_of(function)
    found: list[Run] = []
    end: Expr = const(0)
    for block in blocks(function):
        run = _run(function, block, facts)
        if run is None or run.target is not end:
            return None
        found.append(run)
        end = simplify(end + run.size, facts)
    whole = simplify(element_count(function.output_buffers[0]), facts)
    return tuple(found) if found and end is whole else None


def _run(function: TensorFunction, block: Block, facts: Facts) -> Run | None:
    """The run of memory that a block copies."""
    store = only_store(block)
    load = None if store is None else store.value
    if store is None or not isinstance(load, Load) or load.mask is not None:
        return None
    if any(i.kind != "spatial" for i in block.iters) or block.where is not None:
        return None
    if load.buffer not in function.input_buffers:
        return None
    domain = Buffer("domain", tuple(i.extent for i in block.iters), load.dtype)
    row = flat_index(domain, [i.var for i in block.iters])
    for i in block.iters:
        facts = facts.with_range(i.var, i.extent)
    own = {i.var for i in block.iters}
    source = simplify(flat_index(load.buffer, load.indices) - row, facts)
    target = simplify(flat_index(store.buffer, store.indices) - row, facts)
    if own & set(variables(source, target)):
        return None
    size = simplify(element_count(domain), facts)
    return Run(function.input_buffers.index(load.buffer), source, target, size)


@dataclass(slots=True)
class _Restore:
    """Rewrites the calls of one graph function."""

    module: Module
    function: GraphFunction
    known: dict[str, tuple[Run, ...]]
    body: list[Binding] = field(default_factory=list[Binding])
    made: dict[Value, Binding] = field(default_factory=dict[Value, Binding])
    taken: set[str] = field(default_factory=set[str])
    fixed: set[Value] = field(default_factory=set[Value])

    def run(self) -> GraphFunction:
        self.taken = set(names(self.function))
        self.fixed = {r for r in self.function.results if isinstance(r, Value)}
        for b in self.function.body:
            self.made.update((v, b) for v in b.outputs)
            if isinstance(b.op, Cond | WhileLoop):
                self.fixed.update(b.outputs)
        for b in reversed(self.function.body):  # a result may be a view of what is made
            if isinstance(b.op, Reshape) and b.outputs[0] in self.fixed:
                self.fixed.update(a for a in b.args if isinstance(a, Value))
        for b in self.function.body:
            runs = self.known.get(b.op.function) if isinstance(b.op, CallTensor) else None
            if runs is None or not (self.part(b, runs) or self.joined(b, runs)):
                self.body.append(b)
        return replace_fields(self.function, body=tuple(self.body))

    def part(self, b: Binding, runs: tuple[Run, ...]) -> bool:
        """Let a slice be a view, unless it leaves the function."""
        run = runs[0]
        x = b.args[run.operand]
        if len(runs) != 1 or not isinstance(x, Value) or b.outputs[0] in self.fixed:
            return False
        start, size = self.at_call(b, run.source), self.at_call(b, run.size)
        row = self.emit(Reshape((_count(x),)), (x,), _count(x))
        cut = self.emit(Slice(0, start, simplify(start + size)), (row,), size)
        self.view(b, cut)
        return True

    def joined(self, b: Binding, runs: tuple[Run, ...]) -> bool:
        """Let operands of a concatenation be made in their places, if that holds for some."""
        args = [b.args[r.operand] for r in runs]
        whole = all(
            isinstance(a, Value | ConstantRef) and self.at_call(b, r.size) is _count(a)
            for a, r in zip(args, runs, strict=True)
        )
        if not whole or not any(self.is_made(a) for a in args):
            return False
        rows = tuple(self.emit(Reshape((_count(a),)), (a,), _count(a)) for a in args)
        size = _count(b.outputs[0])
        self.view(b, self.emit(Concat(0), rows, size))
        return True

    def is_made(self, a: Atom) -> bool:
        """Whether a kernel makes a value, which then may lie anywhere."""
        while isinstance(a, Value) and a in self.made and isinstance(self.made[a].op, Reshape):
            a = self.made[a].args[0]
        if not isinstance(a, Value) or a in self.fixed or a not in self.made:
            return False
        return isinstance(self.made[a].op, CallTensor)

    def at_call(self, b: Binding, x: Expr) -> Expr:
        """An expression over a callee's symbols as one over this function's."""
        assert isinstance(b.op, CallTensor)
        callee = self.module.tensor(b.op.function)
        return simplify(substitute(x, callee_symbols(callee, b.args, b.op)))

    def emit(self, op: Reshape | Slice | Concat, args: tuple[Atom, ...], size: Expr) -> Value:
        assert isinstance(args[0].type, TensorType)
        name = fresh_name("row", self.taken)
        self.taken.add(name)
        value = Value(name, tensor((size,), args[0].type.dtype))
        self.body.append(Binding((value,), op, args))
        return value

    def view(self, b: Binding, row: Value) -> None:
        out = b.outputs[0].type
        assert isinstance(out, TensorType)
        self.body.append(replace_fields(b, op=Reshape(out.dims), args=(row,)))


def _count(a: Atom) -> Expr:
    assert isinstance(a.type, TensorType)
    count: Expr = const(1)
    for d in a.type.dims:
        count = count * d
    return simplify(count)
