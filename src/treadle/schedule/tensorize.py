"""A tile of a computation by the machine's own instructions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.bounds import Facts, prove
from treadle.expr.scalar import Apply, Expr, Var, as_expr, int_value, substitute, transform
from treadle.expr.simplify import simplify
from treadle.ir.analysis import LANE, accesses, allocated, defined, fresh_name, names
from treadle.ir.analysis import blocks as blocks_of
from treadle.ir.tensor import Block, Buffer, For, If, Load, Store, TensorFunction
from treadle.schedule.blockize import blockized
from treadle.schedule.digits import one_to_one
from treadle.schedule.instruction import Instruction
from treadle.schedule.intrinsics import TensorIntrin, find_intrinsic
from treadle.schedule.matching import Mismatch, Region, match_block
from treadle.schedule.nest import (
    BlockSite,
    Body,
    block_sites,
    conjunction,
    conjuncts,
    facts_at,
    locate_block,
    map_exprs,
    replaced,
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What an intrinsic takes the place of: a block in its function, and the one in its nest.

    ``full`` are the conditions under which the whole tile is there.
    """

    function: TensorFunction
    site: BlockSite
    block: Block
    intrin: TensorIntrin
    regions: Mapping[Buffer, Region]
    full: tuple[Expr, ...]


@dataclass(frozen=True)
class Tensorize(Instruction):
    """Let a tensor intrinsic do what a loop and all in it do, or what a block does that
    ``blockize`` made.

    The nest must hold one block over a tile of axes of the extents of the intrinsic's description,
    with the same expression over the same elements; a buffer of the description may lie anywhere in
    a buffer of the program. Where the block runs under conditions on the loops inside, the
    intrinsic does the tiles that are whole, and the loops as they were do the others (inside of a
    block ``{block}_o``).

    An intrinsic that sums floats in another order than its description needs ``reassociate=True``.

    Errors: E0301 no such loop or block; E0308 the order of a sum; E0370 no such intrinsic; E0371
    other statements in the loop; E0372 no tile; E0373 the start of a reduction, or a condition that
    has no corner; E0374 the block does something else; E0375 a buffer of another type, in another
    scope, scattered, or read and written.
    """

    target: str
    intrin: "str | TensorIntrin"
    reassociate: bool = False

    def check(self, function: TensorFunction) -> _Found:
        """Where the intrinsic's buffers lie."""
        intrin = self._intrinsic(function)
        if not intrin.exact and not self.reassociate:
            raise self.refuse(
                function,
                None,
                "E0308",
                f"{intrin.name} sums in another order",
                hint="pass reassociate=True to accept another order of summation",
            )
        site: BlockSite
        if any(s.node.name == self.target for s in block_sites(function)):
            site = locate_block(self, function, self.target)
        else:
            function, name = blockized(self, function, self.target)
            site = locate_block(self, function, name)
        inside, inner = self._nest(function, site)
        facts = self._facts(function, site, inner)
        self._check_tile(function, inside, inner)
        (said,) = blocks_of(intrin.description)
        found = match_block(inner, intrin.description, said, facts)
        if isinstance(found, Mismatch):
            raise self.refuse(
                function, found.node, "E0374", f"{intrin.name} does not fit: {found.why}",
                notes=tuple(f"{intrin.name}: {line}" for line in _body_lines(intrin)),
            )  # fmt: skip
        self._check_buffers(function, site, intrin, found)
        conditions = conjuncts(inner.where)
        full = tuple(self._corner(function, site, c, inside, facts) for c in conditions)
        return _Found(function, site, inner, intrin, found, full)

    def _intrinsic(self, function: TensorFunction) -> TensorIntrin:
        if isinstance(self.intrin, TensorIntrin):
            return self.intrin
        found = find_intrinsic(self.intrin)
        if found is None:
            raise self.refuse(
                function,
                None,
                "E0370",
                f"there is no intrinsic '{self.intrin}'",
                hint="there are transpose_f32_16x16, fma_f32_1x16x1, dot_u8i8_1x16x4 and their "
                "like; treadle.schedule.intrinsics.intrinsic_names() lists them",
            )
        return found

    def _nest(self, function: TensorFunction, site: BlockSite) -> tuple[tuple[For, ...], Block]:
        """The loops of a block, and the block in them."""
        inside: list[For] = []
        body = site.node.body
        while len(body) == 1 and isinstance(body[0], For):
            inside.append(body[0])
            body = body[0].body
        if len(body) != 1 or not isinstance(body[0], Block):
            raise self.refuse(
                function,
                site.node,
                "E0371",
                f"block '{site.node.name}' is no nest around one block",
                hint="name a loop, or a block that blockize made",
            )
        return tuple(inside), body[0]

    def _facts(self, function: TensorFunction, site: BlockSite, inner: Block) -> Facts:
        facts = facts_at(function, site.loops)
        for axis in (*site.node.iters, *inner.iters):
            facts = facts.with_range(axis.var, axis.extent)
        return facts

    def _check_tile(self, function: TensorFunction, inside: tuple[For, ...], inner: Block) -> None:
        """The loops must reach every point of the inner axes, once."""
        facts = facts_at(function, inside)
        moving = {x.var: x.extent for x in inside}
        sizes = [int_value(x.extent) for x in inside]
        points = [int_value(a.extent) for a in inner.iters]
        known = [n for n in (*sizes, *points) if n is not None]
        whole = len(known) == len(sizes) + len(points) and prod(known[: len(sizes)]) == prod(
            known[len(sizes) :]
        )
        if not whole or not one_to_one([a.binding for a in inner.iters], moving, facts):
            raise self.refuse(
                function, inner, "E0372", f"block '{inner.name}' does not run over a whole tile"
            )

    def _check_buffers(
        self,
        function: TensorFunction,
        site: BlockSite,
        intrin: TensorIntrin,
        regions: Mapping[Buffer, Region],
    ) -> None:
        written = regions[intrin.output].buffer
        wide = _vector_dims(intrin.implementation)
        for said, region in regions.items():
            name, buffer = said.name, region.buffer
            allowed = (intrin.scopes or {}).get(name)
            if said is not intrin.output and buffer is written:
                raise self._refuse_buffer(function, site, buffer, "is read and written")
            if allowed is not None and buffer.scope not in allowed:
                listed = " or ".join(sorted(allowed))
                raise self._refuse_buffer(
                    function, site, buffer, f"is {buffer.scope}, and '{name}' must be {listed}"
                )
            for dim in wide.get(said, ()):
                last = dim == said.ndim - 1
                if last and (dim not in region.kept or region.at(dim) != buffer.ndim - 1):
                    raise self._refuse_buffer(
                        function, site, buffer,
                        f"does not hold neighbours of '{name}' next to each other",
                        hint="transform_layout, or a copy with its dimensions in another order",
                    )  # fmt: skip

    def _refuse_buffer(
        self,
        function: TensorFunction,
        site: BlockSite,
        buffer: Buffer,
        why: str,
        hint: str | None = None,
    ) -> Exception:
        users = (a.stmt for a in accesses((site.node,)) if a.buffer is buffer)
        return self.refuse(
            function, next(users, site.node), "E0375", f"'{buffer.name}' {why}", hint=hint
        )

    def _corner(
        self,
        function: TensorFunction,
        site: BlockSite,
        condition: Expr,
        inside: Iterable[For],
        facts: Facts,
    ) -> Expr:
        """The condition at the point of the tile where it fails first."""
        moving = {x.var: x.extent for x in inside}
        found = _corner(condition, moving)
        if found is None:
            raise self.refuse(
                function,
                site.node,
                "E0373",
                f"cannot tell where in a tile {condition} fails first",
                hint='split with tail="peel" leaves whole tiles without a condition',
            )
        return simplify(found, facts)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the intrinsic."""
        found = self.check(function)
        body = _instantiated(found)
        full = conjunction(
            c for c in found.full if not prove(c, facts_at(found.function, found.site.loops))
        )
        old = found.site.node
        if full is not None:
            body = (If(full, body, old.body, old.span),)
        name = found.block.name if full is None else old.name
        return replaced(found.function, (old, (replace_fields(old, name=name, body=body),)))


def _body_lines(intrin: TensorIntrin) -> list[str]:
    (said,) = blocks_of(intrin.description)
    axes = [f"{a.var} < {a.extent} ({a.kind})" for a in said.iters]
    stores = [s for s in said.body if isinstance(s, Store)]
    text = [f"{s.buffer.name}[{', '.join(map(str, s.indices))}] = {s.value}" for s in stores]
    return [", ".join(axes), *text]


def _vector_dims(implementation: TensorFunction) -> dict[Buffer, set[int]]:
    """The dimensions of each parameter that are accessed by vectors."""
    found: dict[Buffer, set[int]] = {}
    for a in accesses(implementation.body):
        if a.is_vector:
            dims = found.setdefault(a.buffer, set())
            dims.update(n for n, i in enumerate(a.indices) if _mentions_lane(i))
    return found


def _mentions_lane(index: Expr) -> bool:
    return index.dtype.lanes > 1 or substitute(index, {LANE: as_expr(0)}) is not index


_ORDER = {"lt": (0, 1), "le": (0, 1), "gt": (1, 0), "ge": (1, 0)}


def _corner(condition: Expr, moving: Mapping[Var, Expr]) -> Expr | None:
    """A comparison where its smaller side is greatest, if it is linear in the loops that move."""
    if not isinstance(condition, Apply) or condition.fn not in _ORDER:
        return None
    small, large = (condition.args[n] for n in _ORDER[condition.fn])
    values: dict[Var, Expr] = {}
    still = {v: as_expr(0) for v in moving}
    for var, extent in moving.items():
        others = {v: x for v, x in still.items() if v is not var}
        line = substitute(small - large, others)
        weight = int_value(simplify(substitute(line, {var: as_expr(1)}) - _at(line, var, 0)))
        second = int_value(simplify(_at(line, var, 2) - _at(line, var, 1)))
        if weight is None or weight != second:
            return None
        values[var] = extent - 1 if weight > 0 else as_expr(0)
    return substitute(condition, values)


def _at(e: Expr, var: Var, value: int) -> Expr:
    return substitute(e, {var: as_expr(value)})


class _Placed(Rewriter):
    """Stores to the buffers of a description become stores to where they lie."""

    def __init__(self, regions: Mapping[Buffer, Region], own: Mapping[Buffer, Buffer]) -> None:
        self.regions, self.own = regions, own

    def rewrite_expr(self, node: Expr) -> Expr:
        return node

    def rewrite_buffer(self, node: Buffer) -> Buffer:
        return self.own.get(node, node)

    def rewrite_store(self, node: Store) -> Store:
        region = self.regions.get(node.buffer)
        if region is None:
            return self.generic(node)
        return replace_fields(node, buffer=region.buffer, indices=region.place(node.indices))


def _instantiated(found: _Found) -> Body:
    """The implementation over the program's buffers, with names of its own."""
    implementation, regions = found.intrin.implementation, found.regions
    taken = set(names(found.function))
    renamed: dict[Var, Expr] = {}
    for var in defined(implementation.body):
        renamed[var] = Var(fresh_name(var.name, taken), var.dtype)
        taken.add(fresh_name(var.name, taken))
    own: dict[Buffer, Buffer] = {}
    for buffer in allocated(implementation.body):
        name = fresh_name(buffer.name, taken)
        taken.add(name)
        own[buffer] = Buffer(name, buffer.shape, buffer.dtype, buffer.scope)

    def change(e: Expr) -> Expr:
        return transform(e, visit)

    def visit(e: Expr) -> Expr | None:
        if isinstance(e, Var):
            return renamed.get(e)
        if isinstance(e, Load) and e.buffer in regions:
            region = regions[e.buffer]
            return Load(region.buffer, region.place(e.indices), e.mask)
        if isinstance(e, Load) and e.buffer in own:
            return Load(own[e.buffer], e.indices, e.mask)
        return None

    return _Placed(regions, own).rewrite(map_exprs(implementation.body, change))
