"""What a running loop program has: the values of its variables and the memory of its buffers."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from treadle.base.errors import RuntimeFault
from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, Var
from treadle.ir.tensor import Buffer

# A value is a Python int (i64), a bool, a NumPy scalar or a vector (lanes,). Over a mesh of points
# of rank k, it may also be an array of rank k (k + 1 for vectors, lanes last).
Scalar = Any


@dataclass(eq=False)
class State:
    """Variables and buffers while a function runs.

    ``active`` says at which points of a mesh statements have effect; ``None`` everywhere.
    """

    function: str
    variables: dict[Var, Scalar] = field(default_factory=dict[Var, Scalar])
    buffers: dict[Buffer, np.ndarray] = field(default_factory=dict[Buffer, np.ndarray])
    active: np.ndarray | bool | None = None


def poisoned(buffer: Buffer, shape: tuple[int, ...]) -> np.ndarray:
    """Memory of undefined contents: NaN or the smallest integer, so that a read of it shows."""
    dtype = buffer.dtype
    full = (*shape, dtype.lanes) if dtype.lanes > 1 else shape
    if dtype.is_float:
        return np.full(full, np.nan, dtype.numpy)
    if dtype.is_bool:
        return np.ones(full, dtype.numpy)
    low = 0xA5 if dtype.kind == "uint" else np.iinfo(dtype.numpy).min
    return np.full(full, low, dtype.numpy)


@dataclass(frozen=True, slots=True)
class Element:
    """What the text of a load or store says: the buffer, and which indices (and whether the mask)
    are vectors.
    """

    buffer: Buffer
    vectors: tuple[bool, ...]
    vector_mask: bool

    @staticmethod
    def of(buffer: Buffer, indices: tuple[Expr, ...], mask: Expr | None) -> "Element":
        """The description of an access."""
        wide = tuple(i.dtype.lanes > 1 for i in indices)
        return Element(buffer, wide, mask is not None and mask.dtype.lanes > 1)

    @property
    def gathers(self) -> bool:
        """Whether an index is a vector, so that its lanes select elements."""
        return any(self.vectors)

    @property
    def holds_vectors(self) -> bool:
        """Whether the buffer's own elements are vectors."""
        return self.buffer.dtype.lanes > 1


def load(state: State, element: Element, indices: list[Scalar], mask: Scalar | None) -> Scalar:
    """The elements of a buffer at ``indices``; zero, and no memory touched, where ``mask`` is
    false.

    Raises:
        RuntimeFault: E0761 if an index is out of bounds where the mask holds.
    """
    buffer = element.buffer
    memory = _memory(state, buffer)
    points = [_plain(i) for i in indices]
    if mask is None and state.active is None and all(type(i) is int for i in points):
        _check_point(state, buffer, memory, points)
        found = memory[tuple(points)]
        if element.holds_vectors:
            return found.copy()
        return int(found) if buffer.dtype == i64 else found
    points = _spread(element, points)
    touched = _touched(state, element, mask)
    _check(state, buffer, memory, points, touched)
    if touched is None:
        return memory[tuple(points)]
    return _masked_load(element, memory, points, mask, touched)


def store(
    state: State, element: Element, indices: list[Scalar], value: Scalar, mask: Scalar | None
) -> None:
    """Write ``value`` at ``indices`` where ``mask`` holds.

    Raises:
        RuntimeFault: E0761 if an index is out of bounds where the mask holds.
    """
    memory = _memory(state, element.buffer)
    points = [_plain(i) for i in indices]
    if mask is None and state.active is None and all(type(i) is int for i in points):
        _check_point(state, element.buffer, memory, points)
        if not element.holds_vectors and isinstance(value, np.ndarray) and value.ndim:
            value = value[-1]  # All iterations store here; what the last one stores stays.
        memory[tuple(points)] = value
        return
    points = _spread(element, points)
    touched = _touched(state, element, mask)
    _check(state, element.buffer, memory, points, touched)
    if touched is None:
        memory[tuple(points)] = value
    elif element.holds_vectors:
        _store_vectors(element, memory, points, value, mask, touched)
    elif np.any(touched):
        *spread, kept, value = np.broadcast_arrays(*points, touched, value)
        chosen = value[kept]
        memory[tuple(i[kept] for i in spread)] = chosen if points else chosen[-1]


def _memory(state: State, buffer: Buffer) -> np.ndarray:
    found = state.buffers.get(buffer)
    if found is None:
        raise RuntimeFault(
            "E0764", f"{state.function}: buffer '{buffer.name}' is used outside its scope"
        )
    return found


def _plain(index: Scalar) -> Scalar:
    return index if isinstance(index, np.ndarray) and index.ndim else int(index)


def _spread(element: Element, points: list[Scalar]) -> list[Scalar]:
    """Give scalar indices over a mesh an axis for the lanes of the vector among them."""
    if not element.gathers:
        return points
    wide = zip(points, element.vectors, strict=True)
    return [i[..., None] if isinstance(i, np.ndarray) and not vector else i for i, vector in wide]


def _touched(state: State, element: Element, mask: Scalar | None) -> np.ndarray | None:
    """Where memory is touched: at active points where the mask holds; ``None`` everywhere.

    A mask over the lanes of a buffer's own vectors counts as one for the vector: any lane touches
    it.
    """
    if mask is not None:
        mask = np.asarray(mask)
        if element.vector_mask and element.holds_vectors:
            mask = mask.any(axis=-1)
        elif element.gathers and not element.vector_mask:
            mask = mask[..., None]
    if state.active is None:
        return mask
    active = np.asarray(state.active)
    active = active[..., None] if element.gathers else active
    return active if mask is None else active & mask


def _check_point(state: State, buffer: Buffer, memory: np.ndarray, point: list[int]) -> None:
    for i, extent in zip(point, memory.shape, strict=False):
        if not 0 <= i < extent:
            raise _out_of_bounds(state, buffer, point)


def _check(
    state: State,
    buffer: Buffer,
    memory: np.ndarray,
    points: list[Scalar],
    touched: np.ndarray | None,
) -> None:
    for i, extent in zip(points, memory.shape, strict=False):
        index = np.asarray(i)
        if index.size == 0 or (index.min() >= 0 and index.max() < extent):
            continue
        bad = (index < 0) | (index >= extent)
        if touched is not None:
            bad = bad & touched
        if not bad.any():
            continue
        everywhere = np.broadcast_arrays(*points, bad)
        first = int(np.argmax(everywhere[-1]))
        raise _out_of_bounds(state, buffer, [int(p.flat[first]) for p in everywhere[:-1]])


def _masked_load(
    element: Element,
    memory: np.ndarray,
    points: list[Scalar],
    mask: Scalar | None,
    touched: np.ndarray,
) -> Scalar:
    zero = np.zeros((), memory.dtype)
    lanes = element.buffer.dtype.lanes
    if memory.size == 0:
        shape = np.broadcast_shapes(*(np.shape(p) for p in points), touched.shape)
        return np.zeros((*shape, lanes) if lanes > 1 else shape, memory.dtype)
    found = memory[tuple(np.where(touched, p, 0) for p in points)]
    if not element.holds_vectors:
        return np.where(touched, found, zero)
    kept = touched[..., None]
    return np.where(kept & np.asarray(mask) if element.vector_mask else kept, found, zero)


def _store_vectors(
    element: Element,
    memory: np.ndarray,
    points: list[Scalar],
    value: Scalar,
    mask: Scalar | None,
    touched: np.ndarray,
) -> None:
    *spread, kept = np.broadcast_arrays(*points, touched)
    chosen = tuple(i[kept] for i in spread)
    shape = (*kept.shape, element.buffer.dtype.lanes)
    written = np.broadcast_to(value, shape)[kept]
    if element.vector_mask:
        lanes = np.broadcast_to(np.asarray(mask), shape)[kept]
        written = np.where(lanes, written, memory[chosen])
    memory[chosen] = written


def _out_of_bounds(state: State, buffer: Buffer, indices: list[int]) -> RuntimeFault:
    shape = tuple(int(d) for d in _memory(state, buffer).shape[: buffer.ndim])
    at = ", ".join(map(str, indices))
    return RuntimeFault(
        "E0761",
        f"{state.function}: {buffer.name}[{at}] is out of bounds of the shape {shape}",
        help="give the load or store a mask, or guard the block with where(...)",
    )
