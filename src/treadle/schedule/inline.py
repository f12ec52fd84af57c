"""Inlining: a producer into its consumers, an elementwise consumer into its producer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from treadle.expr.scalar import (
    Const,
    Expr,
    Var,
    apply,
    int_value,
    select,
    substitute,
    transform,
    variables,
)
from treadle.ir.analysis import symbols
from treadle.ir.tensor import ZERO, Intrinsic, Load, Store, TensorFunction
from treadle.schedule.dependence import (
    axes,
    check_ready,
    is_internal,
    of_buffer,
    only_tails,
    single_store,
    walk_loads,
)
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import (
    BlockSite,
    locate_block,
    map_exprs,
    replaced,
    rescoped,
    with_body,
    without_allocation,
)


def elementwise(rule: Instruction, function: TensorFunction, site: BlockSite) -> Store:
    """The one store of a block without a reduction.

    Raises:
        ScheduleError: E0320 for another form.
    """
    block = site.node
    store = single_store(block)
    if store is None or block.init or axes(block, "reduce") or not only_tails(function, site):
        raise rule.refuse(
            function,
            block,
            "E0320",
            f"block '{block.name}' is not one plain store at every point",
            hint="inline blocks with spatial axes, one store and no condition but tails",
        )
    return store


def axes_as_indices(
    rule: Instruction,
    function: TensorFunction,
    site: BlockSite,
    indices: Sequence[Expr],
    code: str,
    without: Collection[Var] = (),
) -> None:
    """Refuse unless the indices are all the spatial axes of the block ``without`` some, each once,
    and zeros.
    """
    own = [v for v in axes(site.node, "spatial") if v not in without]
    used = [i for i in indices if i is not ZERO]
    if len(set(used)) != len(used) or set(used) != set(own):
        raise rule.refuse(
            function,
            site.node,
            code,
            f"block '{site.node.name}' does not use its axes as indices, each once",
            notes=("the indices are " + (", ".join(map(str, indices)) or "none"),),
        )


def _single_axes(site: BlockSite, store: Store) -> tuple[Var, ...]:
    """The axes of one element that a block does not use as indices."""
    ones = (i.var for i in site.node.iters if int_value(i.extent) == 1)
    return tuple(v for v in ones if v not in store.indices)


def masked(value: Expr, mask: Expr | None) -> Expr:
    """A value of which nothing is loaded where ``mask`` is false; zero there."""
    if mask is None:
        return value

    def guard(x: Expr) -> Expr | None:
        if not isinstance(x, Load):
            return None
        return Load(x.buffer, x.indices, mask if x.mask is None else apply("and", x.mask, mask))

    return select(mask, transform(value, guard), Const(0, value.dtype))


@dataclass(frozen=True)
class ComputeInline(Instruction):
    """Compute a producer's value where it is used, and do without its buffer.

    The block is ``B[i, j, ...] = value`` over distinct axes; those of one element may be left out.
    A load of ``B`` under a mask loads under that mask.

    Errors: E0320 the block's form; E0322 the buffer is a parameter; E0323 it has other writers;
    E0324 a use that takes an address or a vector; E0325 the store's indices; E0327 what it reads
    changes before it is used.
    """

    block: str

    def check(self, function: TensorFunction) -> tuple[BlockSite, Store]:
        """The block and its store."""
        site = locate_block(self, function, self.block)
        store = elementwise(self, function, site)
        if store.mask is not None:
            raise self.refuse(
                function, store, "E0320", f"the store of block '{self.block}' is masked"
            )
        if not is_internal(function, store.buffer):
            raise self.refuse(
                function, site.node, "E0322", f"'{store.buffer.name}' is a parameter; others see it"
            )
        single = _single_axes(site, store)
        axes_as_indices(self, function, site, store.indices, "E0325", single)
        if len(of_buffer(function, store.buffer, "store")) > 1:
            raise self.refuse(
                function, site.node, "E0323", f"'{store.buffer.name}' has other writers"
            )
        known = {*axes(site.node, "spatial"), *symbols(function)}
        loose = [v for v in variables(store.value) if v not in known]
        if loose or any(x.buffer is store.buffer for x in walk_loads(store.value)):
            raise self.refuse(
                function, store, "E0320", f"block '{self.block}' is not a function of its axes"
            )
        for read in of_buffer(function, store.buffer, "load"):
            if isinstance(read.stmt, Intrinsic) or any(i.dtype.lanes > 1 for i in read.indices):
                raise self.refuse(
                    function,
                    read.stmt,
                    "E0324",
                    f"'{store.buffer.name}' is not read one by one here",
                )
        return site, store

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function without the block."""
        site, store = self.check(function)
        buffer, reads = store.buffer, of_buffer(function, store.buffer, "load")
        users = tuple(dict.fromkeys(r.blocks[0].name for r in reads if r.blocks))
        single: dict[Var, Expr] = dict.fromkeys(_single_axes(site, store), ZERO)

        def inlined(x: Expr) -> Expr | None:
            if not isinstance(x, Load) or x.buffer is not buffer:
                return None
            pairs = zip(store.indices, x.indices, strict=True)
            point = single | {v: i for v, i in pairs if isinstance(v, Var)}
            return masked(substitute(store.value, point), x.mask)

        without = without_allocation(replaced(function, (site.node, ())), buffer)
        after = with_body(without, map_exprs(without.body, lambda e: transform(e, inlined)))
        check_ready(self, function, site.node, after, users)
        return rescoped(after)
