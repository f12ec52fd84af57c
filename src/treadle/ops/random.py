"""Random tensors that follow from a seed: the counter-based generator Philox4x32-10.

Element e of a tensor (in row-major order) uses the words of counter e under the seed as key, so the
result depends on nothing but seed, shape and dtype, whatever order it is computed in. Source:
Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.expr.dtype import DType, bf16, f16, f32, f64, u64
from treadle.expr.scalar import Const, Expr, ExprLike, Var, apply, cast
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op, Samples
from treadle.ir.tensor import ZERO, Let, Stmt, Store, TensorFunction
from treadle.ir.types import TensorType
from treadle.ops._shapes import check_dims, check_dtype, check_field, operands, tensor_type, wide
from treadle.ops.create import known_shape

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF

Words = tuple[Expr, Expr, Expr, Expr]


def philox(counter: np.ndarray, seed: int) -> np.ndarray:
    """The four 32-bit words of each 64-bit counter under a seed. Shapes: counter: any, u64 -> (4,
    *any), u64."""
    mask = np.uint64(_MASK)
    state = np.stack(
        [counter & mask, counter >> np.uint64(32), np.zeros_like(counter), np.zeros_like(counter)]
    )
    keys = [seed & _MASK, seed >> 32 & _MASK]
    for _ in range(_ROUNDS):
        products = state[[0, 2]] * np.array(_MULTIPLIERS, np.uint64).reshape(2, *[1] * counter.ndim)
        high, low = products >> np.uint64(32), products & mask
        state = np.stack(
            [
                high[1] ^ state[1] ^ np.uint64(keys[0]),
                low[1],
                high[0] ^ state[3] ^ np.uint64(keys[1]),
                low[0],
            ]
        )
        keys = [(k + w) & _MASK for k, w in zip(keys, _WEYL, strict=True)]
    return state


def _let(f: LoopBuilder, body: list[Stmt], value: Expr) -> Expr:
    """Name a value, so that later ones do not repeat it."""
    var = Var(f.variable().name, value.dtype)
    body.append(Let(var, value))
    return var


def _philox_words(f: LoopBuilder, body: list[Stmt], counter: Expr, seed: int) -> Words:
    """The same in statements: words in u64, one name each."""
    zero = Const(0, u64)
    words: Words = (counter & _MASK, apply("shr", counter, Const(32, u64)), zero, zero)
    keys = [seed & _MASK, seed >> 32 & _MASK]
    for _ in range(_ROUNDS):
        first = _let(f, body, words[0] * _MULTIPLIERS[0])
        second = _let(f, body, words[2] * _MULTIPLIERS[1])
        words = (
            _let(f, body, (second >> 32) ^ words[1] ^ keys[0]),
            _let(f, body, second & _MASK),
            _let(f, body, (first >> 32) ^ words[3] ^ keys[1]),
            _let(f, body, first & _MASK),
        )
        keys = [(k + w) & _MASK for k, w in zip(keys, _WEYL, strict=True)]
    return words


@dataclass(frozen=True)
class Random(Op):
    """What the distributions share: shape and dtype, and one counter per element."""

    shape: tuple[ExprLike, ...]
    dtype: DType

    differentiable: ClassVar[bool] = False

    def infer(self, *types: TensorType) -> TensorType:
        """What the fields say."""
        operands(self, types, 0)
        check_dtype(self, self.dtype, "float", "the tensor")
        check_dims(self, self.shape)
        return tensor_type(self.shape, self.dtype)

    def lower_words(self, seed: int, value: Callable[[Words, DType], Expr]) -> TensorFunction:
        """One block: ``value`` of the four words of each element, computed in the dtype that it is
        given."""
        f = LoopBuilder(self.op_name())
        y = f.output(self.shape, self.dtype)

        def body(*indices: Expr) -> tuple[Stmt, ...]:
            flat: Expr = ZERO
            for i, d in zip(indices, y.shape, strict=True):
                flat = flat * d + i
            statements: list[Stmt] = []
            words = _philox_words(f, statements, cast(flat, u64), seed)
            statements.append(Store(y, indices, cast(value(words, wide(y.dtype)), y.dtype)))
            return tuple(statements)

        f.block("draw", y.shape, body)
        return f.build()

    def words(self, seed: int) -> np.ndarray:
        """The words of every element, for the reference. Shapes: -> (4, *shape), u64."""
        shape = known_shape(self.shape)
        return philox(np.arange(math.prod(shape), dtype=np.uint64).reshape(shape), seed)


@dataclass(frozen=True)
class RandomUniform(Random):
    """Uniform on [low, high), in steps of 2^-24 of the interval (2^-53 for f64).

    Shapes:  -> shape.
    Errors:  E0103 unless floats.
    """

    low: float = 0.0
    high: float = 1.0
    seed: int = 0

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """The words' leading bits as a fraction."""
        words = self.words(self.seed)
        if self.dtype == f64:
            unit = (
                (words[0] >> np.uint64(5)) * np.float64(2**26) + (words[1] >> np.uint64(6))
            ) / 2**53
        else:
            unit = (words[0] >> np.uint64(8)) / 2**24
        return (self.low + unit * (self.high - self.low)).astype(self.dtype.numpy)

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block."""

        def value(words: Words, inner: DType) -> Expr:
            if inner == f64:
                fine = cast(words[0] >> 5, inner) * 2.0**26 + cast(words[1] >> 6, inner)
                unit = fine * 2.0**-53
            else:
                unit = cast(words[0] >> 8, inner) * 2.0**-24
            return unit * (self.high - self.low) + self.low

        return self.lower_words(self.seed, value)

    @classmethod
    def samples(cls) -> Samples:
        """All float dtypes, an interval, seeds beyond 32 bits, empty and symbolic shapes."""
        yield cls((3, 5), f32), ()
        yield cls((7,), f64, -1.0, 2.0, 1 << 40), ()
        yield cls((2, 3), f16, 0.0, 4.0, 3), ()
        yield cls((5,), bf16, seed=7), ()
        yield cls((0, 3), f32), ()
        yield cls((Var("n"), 2), f32, seed=5), ()


@dataclass(frozen=True)
class RandomNormal(Random):
    """Normal with ``mean`` and standard deviation ``std``, by the Box-Muller transform of two
    words.

    Shapes:  -> shape.
    Errors:  E0103 unless floats; E0108 for a negative ``std``.
    """

    mean: float = 0.0
    std: float = 1.0
    seed: int = 0

    def infer(self, *types: TensorType) -> TensorType:
        """What the fields say."""
        check_field(self, self.std >= 0, f"the standard deviation must not be negative: {self.std}")
        return super().infer(*types)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Box and Muller's transform in double precision."""
        words = self.words(self.seed).astype(np.float64)
        radius = np.sqrt(-2 * np.log((words[0] + 1) / 2**32))
        return (self.mean + self.std * radius * np.cos(2 * np.pi * words[1] / 2**32)).astype(
            self.dtype.numpy
        )

    def lower(self, *types: TensorType) -> TensorFunction:
        """One block."""

        def value(words: Words, inner: DType) -> Expr:
            unit = (cast(words[0], inner) + 1.0) * 2.0**-32
            angle = cast(words[1], inner) * (2 * math.pi * 2.0**-32)
            radius = apply("sqrt", apply("log", unit) * -2.0)
            return radius * apply("cos", angle) * self.std + self.mean

        return self.lower_words(self.seed, value)

    @classmethod
    def samples(cls) -> Samples:
        """All float dtypes, other moments, empty and symbolic shapes."""
        yield cls((3, 5), f32), ()
        yield cls((7,), f64, 1.0, 0.5, 9), ()
        yield cls((2, 3), f16, seed=3), ()
        yield cls((5,), bf16, 0.0, 2.0, 7), ()
        yield cls((0,), f32), ()
        yield cls((Var("n"), 2), f32, seed=5), ()
