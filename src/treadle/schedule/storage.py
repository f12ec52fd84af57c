"""How a buffer of the function's own lies in memory: the distance of its rows, its type."""

from dataclasses import dataclass
from math import prod

from treadle.base.rewrite import Rewriter
from treadle.expr.bounds import interval
from treadle.expr.conversion import holds_exactly
from treadle.expr.dtype import DType, parse_dtype
from treadle.expr.scalar import Expr, Var, cast, int_value, transform
from treadle.expr.simplify import simplify
from treadle.ir.analysis import Access, accesses
from treadle.ir.tensor import Buffer, Intrinsic, Load, Store, TensorFunction
from treadle.schedule.cache import locate_internal
from treadle.schedule.dependence import of_buffer, walk_loads
from treadle.schedule.index_map import IndexMap
from treadle.schedule.instruction import Instruction
from treadle.schedule.layout import TransformLayout
from treadle.schedule.nest import conjuncts, facts_at, with_body


@dataclass(frozen=True)
class StorageAlign(Instruction):
    """Let steps along a dimension of a buffer of the function's own be ``offset`` more than a
    multiple of ``factor`` elements apart.

    The dimensions from ``axis`` on become one, in which a step of ``axis`` is the least distance of
    that kind which holds what it held. Rows at such distances fall on other cache sets or banks
    than each other, or on whole vectors.

    Errors: E0301 no such buffer; E0303 factor and offset; E0305 an extent after ``axis`` is not a
    constant; E0322 the buffer is a parameter; E0324 it is accessed by vectors; E0340 ``axis`` is
    not one before the last.
    """

    buffer: str
    axis: int
    factor: int
    offset: int = 0

    def check(self, function: TensorFunction) -> TransformLayout:
        """The layout that does it."""
        buffer = locate_internal(self, function, self.buffer)
        if self.factor < 1 or not 0 <= self.offset < self.factor:
            raise self.refuse(
                function,
                buffer,
                "E0303",
                f"no distance is {self.offset} more than a multiple of {self.factor}",
                hint="the factor is at least 1, the offset at least 0 and less than the factor",
            )
        if not 0 <= self.axis < buffer.ndim - 1:
            raise self.refuse(
                function,
                buffer,
                "E0340",
                f"dimension {self.axis} of '{self.buffer}' has no rows after it",
                notes=(f"it has {buffer.ndim} dimensions",),
                hint="choose one before the last",
            )
        inner = tuple(int_value(simplify(d)) for d in buffer.shape[self.axis + 1 :])
        if any(d is None for d in inner):
            raise self.refuse(
                function,
                buffer,
                "E0305",
                f"the rows of '{self.buffer}' have no constant size",
                notes=(f"the shape is {tuple(buffer.shape)}",),
            )
        layout = TransformLayout(self.buffer, self._layout(buffer, [d or 0 for d in inner]))
        layout.check(function)
        return layout

    def _layout(self, buffer: Buffer, inner: list[int]) -> IndexMap:
        size = prod(inner)
        stride = size + (self.offset - size) % self.factor
        params = tuple(f"d{i}" for i in range(buffer.ndim))
        place: Expr = Var(params[self.axis]) * stride
        for position in range(len(inner)):
            below = prod(inner[position + 1 :])
            place = place + Var(params[self.axis + 1 + position]) * below
        return IndexMap(params, (*(Var(p) for p in params[: self.axis]), simplify(place)))

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function over the other layout."""
        return self.check(function).apply(function)


@dataclass(frozen=True)
class SetDtype(Instruction):
    """Hold the elements of a buffer of the function's own as another type, where nobody can tell.

    Either the type holds every value of the old one exactly (f16 as f32, i8 as i32, i32 as f64), or
    all values that are stored are integers that are shown to be in its range. They are converted
    when stored, and back when loaded; what is computed with them stays as it is.

    Errors: E0301 no such buffer; E0322 the buffer is a parameter; E0324 its address is taken; E0362
    there is no such type, or it may not hold a value.
    """

    buffer: str
    dtype: str

    def check(self, function: TensorFunction) -> tuple[Buffer, DType]:
        """The buffer and the type."""
        buffer = locate_internal(self, function, self.buffer)
        dtype = parse_dtype(self.dtype)
        if dtype is None or dtype.lanes > 1 or buffer.dtype.lanes > 1:
            raise self.refuse(
                function,
                buffer,
                "E0362",
                f"'{self.dtype}' is no type of elements of '{self.buffer}'",
                hint='name a scalar type, such as "f32" or "i16"',
            )
        for a in accesses(function.body):
            if a.buffer is buffer and isinstance(a.stmt, Intrinsic):
                raise self.refuse(
                    function, a.stmt, "E0324", f"the address of '{self.buffer}' is taken here"
                )
        if not holds_exactly(dtype, buffer.dtype):
            for store in of_buffer(function, buffer, "store"):
                self._check_range(function, store, dtype)
        return buffer, dtype

    def _check_range(self, function: TensorFunction, store: Access, dtype: DType) -> None:
        value = store.stmt.value if isinstance(store.stmt, Store) else None
        reach = _range_of(dtype)
        shown = False
        if value is not None and reach is not None and store.buffer.dtype.is_int:
            facts = facts_at(function, store.loops)
            for block in store.blocks:
                for axis in block.iters:
                    facts = facts.with_range(axis.var, axis.extent)
            for condition in store.conditions:
                for part in conjuncts(condition):
                    facts = facts.with_fact(part)
            found = interval(value, facts)
            low, high = found.low, found.high
            plain = not walk_loads(value) and value.dtype.bits == 64
            shown = plain and low is not None and high is not None
            shown = shown and reach[0] <= (low or 0) and (high or 0) <= reach[1]
        if not shown:
            raise self.refuse(
                function,
                store.stmt,
                "E0362",
                f"cannot show that {dtype} holds what is stored here",
                notes=(f"'{self.buffer}' holds {store.buffer.dtype}",),
                hint="choose a type that holds all values of the old one",
            )

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the buffer of the other type."""
        old, dtype = self.check(function)
        new = Buffer(old.name, old.shape, dtype, old.scope)
        return with_body(function, _Retyped(old, new).rewrite(function.body))


def _range_of(dtype: DType) -> tuple[int, int] | None:
    """The integers that a type holds exactly, all between two."""
    if dtype.kind == "uint":
        return 0, (1 << dtype.bits) - 1
    if dtype.kind == "int":
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    return None


class _Retyped(Rewriter):
    def __init__(self, old: Buffer, new: Buffer) -> None:
        self.old, self.new = old, new

    def rewrite_buffer(self, node: Buffer) -> Buffer:
        return self.new if node is self.old else node

    def rewrite_expr(self, node: Expr) -> Expr:
        return transform(node, self._load)

    def _load(self, x: Expr) -> Expr | None:
        if not isinstance(x, Load) or x.buffer is not self.old:
            return None
        return cast(Load(self.new, x.indices, x.mask), self.old.dtype.vector(x.dtype.lanes))

    def rewrite_store(self, node: Store) -> Store:
        changed = self.generic(node)
        if node.buffer is not self.old:
            return changed
        value = cast(changed.value, self.new.dtype.vector(changed.value.dtype.lanes))
        return Store(self.new, changed.indices, value, changed.mask, changed.span)
