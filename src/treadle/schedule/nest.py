"""Places in a loop program, and how statements there are exchanged."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import Facts
from treadle.expr.scalar import Apply, Expr, Var, apply, substitute, transform, variables, walk
from treadle.expr.simplify import simplify
from treadle.ir.analysis import expressions, facts_of, paths, statements
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    IterVar,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.schedule.instruction import Instruction

Body = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A loop or a block, and the statements around it, outermost first."""

    node: Stmt
    above: tuple[Stmt, ...]

    @property
    def loops(self) -> tuple[For, ...]:
        """The loops around it, outermost first; a loop itself is not among them."""
        return tuple(s for s in self.above if isinstance(s, For))

    @property
    def path(self) -> tuple[Stmt, ...]:
        """The statements around it, then itself."""
        return (*self.above, self.node)


@dataclass(frozen=True, slots=True)
class LoopSite(Site):
    """A loop in its place."""

    node: For


@dataclass(frozen=True, slots=True)
class BlockSite(Site):
    """A block in its place."""

    node: Block

    @property
    def bindings(self) -> dict[Var, Expr]:
        """What the axes are, over the loops."""
        return {axis.var: axis.binding for axis in self.node.iters}


def locate_loop(rule: Instruction, function: TensorFunction, name: str) -> LoopSite:
    """The loop over ``name``, which must not stand inside a block.

    Raises:
        ScheduleError: E0301 if there is none.
    """
    known: list[str] = []
    for stmt, above in paths(function.body):
        if isinstance(stmt, For) and not any(isinstance(s, Block) for s in above):
            if stmt.var.name == name:
                return LoopSite(stmt, above)
            known.append(stmt.var.name)
    raise rule.refuse(
        function, None, "E0301", f"there is no loop '{name}'", hint=_choices("loops", known)
    )


def locate_block(rule: Instruction, function: TensorFunction, name: str) -> BlockSite:
    """The block called ``name``.

    Raises:
        ScheduleError: E0301 if there is none.
    """
    sites = block_sites(function)
    for site in sites:
        if site.node.name == name:
            return site
    known = [s.node.name for s in sites]
    raise rule.refuse(
        function, None, "E0301", f"there is no block '{name}'", hint=_choices("blocks", known)
    )


def locate_target(rule: Instruction, function: TensorFunction, name: str) -> For | Block:
    """The loop over ``name``, or the block called so where there is no such loop.

    Raises:
        ScheduleError: E0301 if there is neither.
    """
    for stmt, above in paths(function.body):
        inside = any(isinstance(s, Block) for s in above)
        if isinstance(stmt, For) and stmt.var.name == name and not inside:
            return stmt
    return locate_block(rule, function, name).node


def require_serial(rule: Instruction, function: TensorFunction, site: LoopSite) -> None:
    """Refuse (E0302) a loop that has a kind already."""
    if site.node.kind != "serial":
        name, kind = site.node.var.name, site.node.kind
        raise rule.refuse(
            function,
            site.node,
            "E0302",
            f"loop '{name}' is already {kind}",
            hint=f"{rule.name()} the loop before it is made {kind}",
        )


def require_plain(rule: Instruction, function: TensorFunction, site: LoopSite) -> None:
    """Refuse a loop that has a kind already (E0302) or annotations (E0350): both would be lost."""
    require_serial(rule, function, site)
    if site.node.annotations:
        name, (key, value) = site.node.var.name, site.node.annotations[0]
        raise rule.refuse(
            function,
            site.node,
            "E0350",
            f"loop '{name}' is annotated",
            notes=(f"{key} is {value!r}",),
            hint=f'unannotate("{name}", "{key}") first',
        )


def _choices(what: str, names: Sequence[str]) -> str:
    return f"the {what} are {', '.join(names)}" if names else f"the function has no {what}"


def block_sites(function: TensorFunction) -> tuple[BlockSite, ...]:
    """The blocks in their places, in the order of the text; not those inside other blocks."""
    return tuple(
        BlockSite(stmt, above)
        for stmt, above in paths(function.body)
        if isinstance(stmt, Block) and not any(isinstance(s, Block) for s in above)
    )


def blocks_below(function: TensorFunction, stmt: Stmt) -> tuple[BlockSite, ...]:
    """The blocks inside a statement."""
    return tuple(s for s in block_sites(function) if any(a is stmt for a in s.above))


def facts_at(function: TensorFunction, loops: Iterable[For]) -> Facts:
    """What is known inside of loops."""
    facts = facts_of(function)
    for loop in loops:
        facts = facts.with_range(loop.var, loop.extent)
    return facts


# ---- Exchanging statements


def replaced(function: TensorFunction, *changes: tuple[Stmt, Body]) -> TensorFunction:
    """The function with each statement exchanged for others; loops that are left empty vanish."""
    return with_body(
        function, pruned(_exchanged(function.body, {id(old): new for old, new in changes}))
    )


def _exchanged(body: Body, changes: Mapping[int, Body]) -> Body:
    result: list[Stmt] = []
    for stmt in body:
        if id(stmt) in changes:
            result.extend(changes[id(stmt)])
            continue
        parts = {n: getattr(stmt, n) for n in ("body", "orelse") if hasattr(stmt, n)}
        new = {n: _exchanged(part, changes) for n, part in parts.items()}
        same = all(new[n] is part for n, part in parts.items())
        result.append(stmt if same else replace_fields(stmt, **new))
    same = len(result) == len(body) and all(a is b for a, b in zip(result, body, strict=True))
    return body if same else tuple(result)


def with_body(function: TensorFunction, body: Body) -> TensorFunction:
    """The same function with another body."""
    return replace_fields(function, body=body)


def pruned(body: Body) -> Body:
    """A body without loops and conditions that do nothing."""
    kept: list[Stmt] = []
    for stmt in body:
        new = stmt
        if isinstance(stmt, For):
            inner = pruned(stmt.body)
            if not inner:
                continue
            new = stmt if inner is stmt.body else replace_fields(stmt, body=inner)
        elif isinstance(stmt, If):
            inner, orelse = pruned(stmt.body), pruned(stmt.orelse)
            if not inner and not orelse:
                continue
            same = inner is stmt.body and orelse is stmt.orelse
            new = stmt if same else replace_fields(stmt, body=inner, orelse=orelse)
        kept.append(new)
    same = len(kept) == len(body) and all(a is b for a, b in zip(kept, body, strict=True))
    return body if same else tuple(kept)


class _MapExprs(Rewriter):
    def __init__(self, change: Callable[[Expr], Expr]) -> None:
        self.change = change

    def rewrite_expr(self, node: Expr) -> Expr:
        return self.change(node)


def map_exprs(body: Body, change: Callable[[Expr], Expr]) -> Body:
    """Statements with every expression in them changed, variables where declared included."""
    return _MapExprs(change).rewrite(body)


def bind(body: Body, values: Mapping[Var, Expr], facts: Facts) -> Body:
    """Statements with loop variables exchanged; the bindings and conditions of blocks are
    simplified.
    """
    return _Bind(values, facts).rewrite(body)


class _Bind(Rewriter):
    def __init__(self, values: Mapping[Var, Expr], facts: Facts) -> None:
        self.values, self.facts = values, facts

    def rewrite_expr(self, node: Expr) -> Expr:
        return substitute(node, self.values)

    def rewrite_for(self, node: For) -> For:
        outer = self.facts
        self.facts = outer.with_range(node.var, node.extent)
        body = self.rewrite(node.body)
        self.facts = outer
        extent = substitute(node.extent, self.values)
        if body is node.body and extent is node.extent:
            return node
        return replace_fields(node, body=body, extent=extent)

    def rewrite_iter_var(self, node: IterVar) -> IterVar:
        binding = substitute(node.binding, self.values)
        extent = substitute(node.extent, self.values)
        if binding is node.binding and extent is node.extent:
            return node
        return replace_fields(node, binding=tidied(binding, self.facts), extent=extent)

    def rewrite_block(self, node: Block) -> Block:
        changed = self.generic(node)
        if node.where is None or changed.where is node.where:
            return changed
        return replace_fields(changed, where=simplified_where(changed.where, self.facts))


def tidied(e: Expr, facts: Facts) -> Expr:
    """An index simplified where that makes it shorter.

    Quotients of sums of loops otherwise stay as they are: they show that an axis is a part of a
    fused loop, which the simplifier's form of them hides.
    """
    simple = simplify(e, facts)
    divides = any(isinstance(x, Apply) and x.fn in ("floordiv", "mod") for x in walk(e))
    if not divides or not isinstance(e, Apply) or _size(simple) < _size(e):
        return simple
    return e.with_children(tuple(tidied(x, facts) for x in e.args))


def _size(e: Expr) -> int:
    return 1 + sum(_size(x) for x in e.children)


class _Rename(Rewriter):
    def __init__(self, buffers: Mapping[Buffer, Buffer]) -> None:
        self.buffers = buffers

    def rewrite_buffer(self, node: Buffer) -> Buffer:
        return self.buffers.get(node, node)

    def rewrite_expr(self, node: Expr) -> Expr:
        return transform(node, self._load)

    def _load(self, x: Expr) -> Expr | None:
        if isinstance(x, Load) and x.buffer in self.buffers:
            return Load(self.buffers[x.buffer], x.indices, x.mask)
        return None


def with_buffers(body: Body, buffers: Mapping[Buffer, Buffer]) -> Body:
    """Statements that use other buffers in the place of some."""
    return _Rename(buffers).rewrite(body)


def without_allocation(function: TensorFunction, buffer: Buffer) -> TensorFunction:
    """The function without the declaration of a buffer that nothing uses any more."""
    found = [s for s in statements(function.body) if isinstance(s, Allocate) and s.buffer is buffer]
    return replaced(function, *((s, ()) for s in found))


def rescoped(function: TensorFunction) -> TensorFunction:
    """The function with each buffer declared around all that uses it, where a moved block has left
    that place.
    """
    declared = [(s, above) for s, above in paths(function.body) if isinstance(s, Allocate)]
    for stmt, above in declared:
        used = [
            (*around, s)
            for s, around in paths(function.body)
            if any(b is stmt.buffer for b in _buffers_of(s))
        ]
        shared = _shared(used)
        if used and (len(shared) < len(above) or _precedes(function, used[0][-1], stmt)):
            first = used[0][len(shared)]
            added = replaced(function, (first, (replace_fields(stmt), first)))
            function = replaced(added, (stmt, ()))
    return function


def _buffers_of(stmt: Stmt) -> tuple[Buffer, ...]:
    if isinstance(stmt, Allocate):
        return ()
    own = tuple(x.buffer for x in walk(*expressions(stmt)) if isinstance(x, Load))
    return (*own, stmt.buffer) if isinstance(stmt, Store) else own


def _shared(chains: Sequence[tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    """The statements, not blocks, that are around all of some."""
    found: list[Stmt] = []
    for level in zip(*(chain[:-1] for chain in chains), strict=False):
        if any(s is not level[0] for s in level) or isinstance(level[0], Block):
            break
        found.append(level[0])
    return tuple(found)


def _precedes(function: TensorFunction, a: Stmt, b: Stmt) -> bool:
    return next(s for s in statements(function.body) if s is a or s is b) is a


# ---- Conditions


def conjuncts(where: Expr | None) -> tuple[Expr, ...]:
    """The conditions that are joined by ``&`` in a condition."""
    if where is None:
        return ()
    fn, args = getattr(where, "fn", None), where.children
    if fn == "and":
        return (*conjuncts(args[0]), *conjuncts(args[1]))
    return (where,)


def conjunction(conditions: Iterable[Expr]) -> Expr | None:
    """Conditions joined by ``&``, each once; ``None`` for none."""
    joined: Expr | None = None
    for condition in dict.fromkeys(conditions):
        joined = condition if joined is None else apply("and", joined, condition)
    return joined


def simplified_where(where: Expr, facts: Facts) -> Expr | None:
    """A condition with its parts simplified; parts that always hold vanish."""
    parts = (simplify(c, facts) for c in conjuncts(where))
    return conjunction(p for p in parts if getattr(p, "value", None) is not True)


def guarded_body(body: Body, condition: Expr) -> Body:
    """Statements that run only where ``condition`` holds; blocks take it as a predicate."""
    if any(isinstance(s, Let) for s in body):
        return (If(condition, body),)
    return tuple(_guarded(s, condition) for s in body)


def _guarded(stmt: Stmt, condition: Expr) -> Stmt:
    if isinstance(stmt, Block):
        return replace_fields(stmt, where=conjunction((*conjuncts(stmt.where), condition)))
    if isinstance(stmt, For):
        return replace_fields(stmt, body=guarded_body(stmt.body, condition))
    return stmt if isinstance(stmt, Allocate) else If(condition, (stmt,))


def uses(e: Expr, names: Iterable[Var]) -> bool:
    """Whether an expression mentions one of the variables."""
    wanted = frozenset(names)
    return any(v in wanted for v in variables(e))
