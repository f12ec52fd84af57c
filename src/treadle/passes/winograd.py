"""Convolutions by fewer products: Winograd's minimal filtering in the place of 3×3 kernels.

A convolution of stride 1 by a constant kernel becomes a transform of the operand's tiles, a product
of matrices for each place of a tile, and a transform back (``treadle.ops.winograd``); the kernel is
transformed here. Results differ from the reference by more than the order of sums, so this is for
``numerics="fast"`` only, and ``approximations`` says by how much.

Which convolutions, and with tiles of which size, follows from an estimate of the time (``_Cost``):
products at one product of vectors per cycle, the weights' way from memory beside them, and the
tiles' way through the caches after them. It is pessimistic about the transforms and asks for a
fifth of the time, so that a model does not become slower.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import f32, f64
from treadle.expr.scalar import Expr, int_value
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Constant, Function, Module
from treadle.ir.types import TensorType, tensor
from treadle.ops import Conv, Einsum, Op, Pad, WinogradInput, WinogradOutput
from treadle.ops.winograd import MATRICES, TAPS, kernel_tiles
from treadle.target import Target

LOG = logging.getLogger("treadle.passes")

_PRODUCTS = "znyxc,zco->znyxo"
_GAIN = 0.8
"""The share of the direct convolution's estimated time that must not be exceeded."""
_MEMORY_BYTES = 8.0
"""Bytes that come from memory in a cycle, for all cores together."""
_CACHE_BYTES = 32.0
"""Bytes that go to the third cache, or come from there, in a cycle, beside other work."""
_TRANSFORM_CYCLES = 8.0
"""Cycles of a vector of transformed elements: some additions, a store or a load far from others."""
_SPILLED_CYCLES = 12.0
"""The same where tiles do not fit into the registers."""
_MANY_REGISTERS = 32
_SYMBOLIC_SIZE = 28
"""What a symbolic height or width is taken for; a symbolic batch is taken for one."""
_LIMIT = 2.0**13
"""The largest error that is accepted, in units of the dtype's rounding."""


@dataclass(frozen=True, slots=True)
class Approximation:
    """A convolution that is computed with fewer products.

    ``name`` is its result in the graph and ``place`` where the model says it. ``tile`` is the ``m``
    of F(m × m, 3 × 3). ``error`` is the largest difference from the exact convolution that was
    found on normally distributed random numbers with the convolution's own weights, divided by the
    root mean square of the exact results.
    """

    name: str
    place: str | None
    tile: int
    error: float

    def __str__(self) -> str:
        where = "" if self.place is None else f" ({self.place})"
        kind = f"winograd F({self.tile}x{self.tile}, 3x3)"
        return f"{self.name}{where}: {kind}, error {self.error:.1e}"


def winograd(module: Module, *, target: Target, threads: int = 1) -> Module:
    """Compute 3×3 convolutions of stride 1 by Winograd's algorithm where that is estimated to be
    faster.
    """
    constants = dict(module.constants)
    functions: list[Function] = []
    for f in module.functions.values():
        if isinstance(f, GraphFunction):
            choices = {id(b): a for b, a in _choices(f, module, target, threads)}
            body: list[Binding] = []
            for b in f.body:
                found = choices.get(id(b))
                body += (b,) if found is None else _expanded(b, found.tile, constants)
            f = replace_fields(f, body=tuple(body)) if choices else f
            for a in choices.values():
                LOG.info("%s", a)
        functions.append(f)
    return Module({f.name: f for f in functions}, constants)


def approximations(
    module: Module, *, target: Target, threads: int = 1
) -> tuple[Approximation, ...]:
    """The convolutions that ``winograd`` replaces in a module."""
    return tuple(
        found for f in module.graph_functions for _, found in _choices(f, module, target, threads)
    )


def _choices(
    function: GraphFunction, module: Module, target: Target, threads: int
) -> Iterator[tuple[Binding, Approximation]]:
    for b in function.body:
        weight = _kernel(b, module)
        result = b.outputs[0].type
        if weight is None or not isinstance(result, TensorType):
            continue
        cost = _Cost.of(result, weight, target, threads)
        for tile in cost.worthwhile():
            error = measured_error(weight, tile)
            if error <= _LIMIT * np.finfo(weight.dtype).eps:
                place = None if b.span is None else str(b.span)
                yield b, Approximation(b.outputs[0].name, place, tile, error)
                break


def _kernel(b: Binding, module: Module) -> np.ndarray | None:
    """The weights of a convolution that has another form."""
    op = b.op
    if not isinstance(op, Conv) or not isinstance(b.args[1], ConstantRef):
        return None
    weight = module.constants[b.args[1].name]
    result, size = b.outputs[0].type, weight.array.shape
    plain = op.groups == 1 and {*op.stride, *op.dilation} == {1}
    known = isinstance(result, TensorType) and result.shape is not None
    if not plain or not known or weight.type.dtype not in (f32, f64) or 0 in size:
        return None
    return weight.array if size[2:] == (TAPS, TAPS) else None


def _expanded(b: Binding, tile: int, constants: dict[str, Constant]) -> tuple[Binding, ...]:
    """A convolution step by step, its transformed kernel among the constants."""
    x, weight, *bias = b.args
    (y,) = b.outputs
    assert isinstance(b.op, Conv)
    assert isinstance(weight, ConstantRef)
    assert isinstance(y.type, TensorType)
    name = f"{weight.name}__winograd{tile}"
    if name not in constants:
        known = constants[weight.name]
        array = kernel_tiles(known.array, tile)
        constants[name] = Constant(tensor(list(array.shape), known.type.dtype), array)
    steps: list[Binding] = []
    if any(map(any, b.op.padding)):
        steps.append(_binding(b, "padded", Pad(((0, 0), (0, 0), *b.op.padding)), x))
        (x,) = steps[-1].outputs
    tiles = _binding(b, "tiles", WinogradInput(tile), x)
    kernel = ConstantRef(name, constants[name].type)
    products = _binding(b, "products", Einsum(_PRODUCTS), tiles.outputs[0], kernel)
    back = WinogradOutput(tile, y.type.dims[2:])
    last = replace_fields(b, op=back, args=(products.outputs[0], *bias))
    return (*steps, tiles, products, last)


def _binding(b: Binding, hint: str, op: Op, *args: Atom) -> Binding:
    types = [a.type for a in args if isinstance(a.type, TensorType)]
    result = op.infer(*types)
    assert isinstance(result, TensorType)
    return Binding((Value(f"{b.outputs[0].name}_{hint}", result),), op, args, b.span)


@dataclass(frozen=True, slots=True)
class _Cost:
    """What the time of a convolution depends on: batch, size of the result, channels in and out,
    and the machine.
    """

    batch: int
    size: tuple[int, ...]
    ins: int
    outs: int
    bytes: int
    target: Target
    threads: int

    @staticmethod
    def of(result: TensorType, weight: np.ndarray, target: Target, threads: int) -> "_Cost":
        """The cost with symbols taken for guesses."""
        batch, _, *size = result.dims
        outs, ins = weight.shape[:2]
        return _Cost(
            _guessed(batch, 1),
            tuple(_guessed(d, _SYMBOLIC_SIZE) for d in size),
            ins,
            outs,
            weight.dtype.itemsize,
            target,
            threads,
        )

    def worthwhile(self) -> list[int]:
        """The sizes of tiles that save time, the fastest first."""
        limit = _GAIN * self.direct()
        times = {tile: self.tiled(tile) for tile in MATRICES}
        return sorted((t for t in times if times[t] <= limit), key=lambda t: times[t])

    def direct(self) -> float:
        """Cycles of the convolution as it is; its lanes may run along pixels."""
        points = self.batch * self.size[0] * self.size[1]
        return self.products(points, TAPS * TAPS, self.outs / self.lanes)

    def tiled(self, tile: int) -> float:
        """Cycles with tiles of ``tile`` × ``tile`` results."""
        places = (tile + TAPS - 1) ** 2
        tiles = self.batch * ceil(self.size[0] / tile) * ceil(self.size[1] / tile)
        moved = places * tiles * (self.ins + self.outs)
        room = self.target.vector_registers >= _MANY_REGISTERS or tile == min(MATRICES)
        each = _TRANSFORM_CYCLES if room else _SPILLED_CYCLES
        vectors = ceil(self.ins / self.lanes) + ceil(self.outs / self.lanes)
        cycles = vectors * places * tiles * each
        # What is written is read again.
        passed = 2 * moved * self.bytes
        if passed > 2 * self.target.l2_bytes:
            cycles += passed / _CACHE_BYTES
        beyond = passed / _MEMORY_BYTES if passed > 2 * self.target.l3_bytes else 0.0
        products = self.products(tiles, places, ceil(self.outs / self.lanes))
        return products + cycles / self.threads + beyond

    def products(self, rows: int, matrices: int, vectors: float) -> float:
        """Cycles of so many products of ``rows`` rows with matrices of weights, each row of these
        ``vectors`` long, which come from memory meanwhile.
        """
        compute = rows * matrices * self.ins * vectors / self.threads
        fetched = matrices * self.ins * self.outs * self.bytes
        return max(compute, fetched / _MEMORY_BYTES)

    @property
    def lanes(self) -> int:
        """Elements of a vector."""
        return self.target.lanes(8 * self.bytes)


def _guessed(dim: Expr, guess: int) -> int:
    value = int_value(dim)
    return guess if value is None else value


def measured_error(weight: np.ndarray, tile: int) -> float:
    """The largest difference between the algorithm, in the dtype of ``weight`` (o, c, 3, 3), and
    the exact convolution, divided by the root mean square of the exact results.

    The operand is random; of the results, at most 32 channels of four tiles are looked at.
    """
    side, chosen = tile + TAPS - 1, weight[:: max(1, len(weight) // 32)][:32]
    rng = np.random.default_rng(0)
    d = rng.standard_normal((4, weight.shape[1], side, side)).astype(weight.dtype)
    view = np.lib.stride_tricks.sliding_window_view(d.astype(np.float64), (TAPS, TAPS), (2, 3))
    exact = np.einsum("ncyxab,ocab->noyx", view, chosen.astype(np.float64), optimize=True)
    # What overflows has no error that would be accepted.
    with np.errstate(over="ignore", invalid="ignore"):
        tiles = WinogradInput(tile).reference(d)
        products = np.matmul(tiles.reshape(side * side, 4, -1), kernel_tiles(chosen, tile))
        shaped = products.reshape(side * side, 4, 1, 1, len(chosen))
        found = WinogradOutput(tile, (tile, tile)).reference(shaped)
        scale = np.sqrt(np.mean(exact**2))
        return float(np.abs(found - exact).max() / scale) if scale > 0 else 0.0
