"""Indices worked out ahead: where a block reads, in a table."""

from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, substitute, transform, variables
from treadle.ir.analysis import accesses, fresh_name, names, symbols
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    IterVar,
    Load,
    Scope,
    Store,
    TensorFunction,
)
from treadle.schedule.cache import (
    axis_boxes,
    block_name,
    check_scope,
    only_reads,
    own_nest,
    renamed_axes,
)
from treadle.schedule.dependence import only_tails, walk_loads
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    facts_at,
    locate_block,
    map_exprs,
    replaced,
    rescoped,
)
from treadle.schedule.nests import nest_over
from treadle.schedule.reindex import is_special


@dataclass(frozen=True)
class CacheIndex(Instruction):
    """Work out one index of what a block reads before the block runs, and let it look the index up.

    ``dimension`` says which index of ``buffer``. The table ``{buffer}_index`` of integers, in
    ``scope``, has a dimension for every axis of the block that the index depends on; the block of
    that name fills it before the largest nest that holds the block alone.

    Errors: E0301 no such buffer; E0320 the block's form, or the index is no function of its axes;
    E0322 no such scope; E0324 the block reads at several indices; E0340 no such dimension; E0363
    there is nothing to work out.
    """

    block: str
    buffer: str
    dimension: int
    scope: Scope = "stack"

    def check(self, function: TensorFunction) -> tuple[BlockSite, Expr, tuple[IterVar, ...]]:
        """The block, the index, and the axes that it depends on."""
        check_scope(self, function, self.scope)
        site = locate_block(self, function, self.block)
        index = self._index(function, site)
        used = set(variables(index))
        axes = tuple(a for a in site.node.iters if a.var in used)
        if not axes or isinstance(index, Var):
            raise self.refuse(
                function,
                site.node,
                "E0363",
                f"index {index} of '{self.buffer}' needs no work",
                notes=("it is an axis, or the same everywhere",),
                hint="choose a dimension with an index that is computed",
            )
        known = {a.var for a in axes} | set(symbols(function))
        written = {a.buffer for a in accesses((site.node,)) if a.kind == "store"}
        if any(v not in known for v in used) or any(x.buffer in written for x in walk_loads(index)):
            raise self.refuse(
                function,
                site.node,
                "E0320",
                f"index {index} is no function of the axes of block '{self.block}'",
            )
        return site, index, axes

    def _index(self, function: TensorFunction, site: BlockSite) -> Expr:
        _, own = only_reads(self, function, self.block, self.buffer)
        if not only_tails(function, site):
            raise self.refuse(
                function,
                site.node,
                "E0320",
                f"block '{self.block}' runs under a condition of its own",
            )
        rank = own[0].buffer.ndim
        if not 0 <= self.dimension < rank:
            raise self.refuse(
                function,
                site.node,
                "E0340",
                f"'{self.buffer}' has no dimension {self.dimension}",
                hint=f"it has {rank}, counted from 0",
            )
        if len({a.indices[self.dimension] for a in own}) > 1 or any(map(is_special, own)):
            raise self.refuse(
                function,
                site.node,
                "E0324",
                f"block '{self.block}' reads '{self.buffer}' at several indices of dimension "
                f"{self.dimension}",
            )
        index = own[0].indices[self.dimension]
        # A masked load of an index may not happen at every point.
        if any(a.lets for a in own) or any(x.mask is not None for x in walk_loads(index)):
            raise self.refuse(
                function,
                site.node,
                "E0320",
                f"index {index} is no function of the axes of block '{self.block}'",
            )
        return index

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the table."""
        site, index, axes = self.check(function)
        taken = set(names(function))
        used = tuple(replace_fields(a, kind="spatial") for a in axes)
        table = Buffer(
            fresh_name(f"{self.buffer}_index", taken),
            tuple(a.extent for a in used),
            index.dtype,
            self.scope,
        )
        taken.add(table.name)
        nest, around = own_nest(function, site)
        iters, new = renamed_axes(used, taken, table.name)
        values: dict[Var, Expr] = dict(new)
        point = tuple(a.var for a in iters)
        fill = Block(
            block_name(function, table.name),
            iters,
            (Store(table, point, substitute(index, values)),),
        )
        boxes = axis_boxes(function, site, used, around)
        fills = nest_over(iters, boxes, facts_at(function, around), taken).around(fill)
        looked_up = Load(table, tuple(a.var for a in used))

        def look_up(x: Expr) -> Expr | None:
            if not isinstance(x, Load) or x.buffer.name != self.buffer:
                return None
            before, after = x.indices[: self.dimension], x.indices[self.dimension + 1 :]
            return Load(x.buffer, (*before, looked_up, *after), x.mask)

        block = map_exprs((site.node,), lambda e: transform(e, look_up))
        changed = replaced(function, (nest, (Allocate(table), *fills, nest)))
        return rescoped(replaced(changed, (site.node, block)))
