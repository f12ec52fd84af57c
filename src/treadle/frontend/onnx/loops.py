"""Loops of the program: a body repeated while it says so, or once for each step of some sequences.

Few steps are written out; more become a ``while_loop`` whose body is a function of its own.
"""

from collections.abc import Callable, Sequence

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import boolean, i64
from treadle.expr.scalar import Expr, as_expr, int_value
from treadle.frontend.onnx.compose import add, both, concat, full, insert_axis, less, pick, reshape
from treadle.frontend.onnx.region import Region
from treadle.ir.calls import WhileLoop
from treadle.ir.graph_builder import Traced
from treadle.ir.types import TensorType
from treadle.ops._shapes import same_dims
from treadle.ops.index import Gather, ScatterNd

# With at most as many steps a loop is written out.
UNROLLED = 32

# Given a region, the number of the iteration and the state: whether to go on (None: always), and
# the next state.
Body = Callable[[Region, Traced, list[Traced]], tuple[Traced | None, list[Traced]]]
# Given a region, the state and a slice of each sequence: the next state, and what the results have
# at this step.
Step = Callable[[Region, list[Traced], list[Traced]], tuple[list[Traced], list[Traced]]]


def is_same(a: TensorType, b: TensorType) -> bool:
    """Whether two types are known to be equal."""
    alike = a.dtype == b.dtype and a.ndim == b.ndim
    known = a.shape is not None and b.shape is not None
    return alike and known and same_dims(a.dims, b.dims)


def check_same(before: TensorType, after: TensorType, what: str) -> None:
    """E0606 unless two types are equal."""
    if not is_same(before, after):
        raise ModelImportError(
            "E0606",
            f"{what} changes its type from {before} to {after}",
            help="a value that control flow carries must keep its shape",
        )


def repeat(
    region: Region, limit: Traced | None, start: Traced | None, states: Sequence[Traced], body: Body
) -> list[Traced]:
    """The state after a loop that ends after ``limit`` iterations, or when ``start`` or the body
    says so.

    Raises:
        ModelImportError: E0606 when the body changes the type of the state.
    """
    zero = region.builder.literal(0, i64)
    go = start if start is not None else region.builder.literal(True, boolean)
    if limit is not None:
        go = both(go, less(zero, limit))
    inner = region.nested("body")
    types = [t.type for t in (zero, go, *states)]
    names = ["i", "go", *[f"state{k}" for k in range(len(states))]]
    index, _, *current = [inner.builder.input(n, t) for n, t in zip(names, types, strict=True)]
    again, following = body(inner, index, current)
    for k, (before, after) in enumerate(zip(states, following, strict=True)):
        check_same(before.type, after.type, f"value {k} of a loop")
    further = add(index, 1)
    again = again if again is not None else inner.builder.literal(True, boolean)
    if limit is not None:
        again = both(again, less(further, inner.bring(limit)))
    condition = region.nested("condition")
    _, goes_on, *_ = [condition.builder.input(n, t) for n, t in zip(names, types, strict=True)]
    condition.take_all(inner)
    inner.close(further, again, *following)
    condition.close(goes_on)
    op = WhileLoop(condition.builder.name, inner.builder.name, len(types), tuple(types))
    results = region.builder.emit_all(
        op, zero, go, *states, *region.operands_of(inner), names=names
    )
    return list(results[2:])


def scan_over(
    region: Region,
    length: Expr,
    states: Sequence[Traced],
    sequences: Sequence[Traced],
    step: Step,
    results: Sequence[TensorType],
) -> tuple[list[Traced], list[Traced]]:
    """The last state, and what every step gave, along a new first axis.

    ``sequences`` are sliced along axis 0; ``results`` are the types of what a step gives.
    """
    count = int_value(length)
    if count is not None and 0 < count <= UNROLLED:
        return _unrolled(region, count, states, sequences, step)
    buffers = [full(sequences[0], (length, *t.dims), 0, t.dtype) for t in results]

    def body(inner: Region, index: Traced, current: list[Traced]) -> tuple[None, list[Traced]]:
        slices = [Gather(0)(inner.bring(x), index) for x in sequences]
        following, given = step(inner, current[: len(states)], slices)
        place = reshape(index, 1, 1)
        written = [
            ScatterNd()(buffer, place, insert_axis(y, 0))
            for buffer, y in zip(current[len(states) :], given, strict=True)
        ]
        return None, [*following, *written]

    limit = region.builder.literal(length, i64)
    final = repeat(region, limit, None, [*states, *buffers], body)
    return final[: len(states)], final[len(states) :]


def _unrolled(
    region: Region, count: int, states: Sequence[Traced], sequences: Sequence[Traced], step: Step
) -> tuple[list[Traced], list[Traced]]:
    current = list(states)
    rows: list[list[Traced]] = []
    for t in range(count):
        current, given = step(region, current, [pick(x, 0, as_expr(t)) for x in sequences])
        rows.append([insert_axis(y, 0) for y in given])
    return current, [concat(list(column), 0) for column in zip(*rows, strict=True)]
