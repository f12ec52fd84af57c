"""What an operation is: one frozen dataclass that holds all that the compiler knows of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from treadle.base.errors import TypeMismatch
from treadle.expr.dtype import DType, boolean
from treadle.expr.scalar import ExprLike, Var, as_expr
from treadle.ir.tensor import TensorFunction
from treadle.ir.types import TensorType, Type

if TYPE_CHECKING:
    from treadle.ir.graph_builder import Traced


@dataclass(frozen=True, slots=True)
class Example:
    """An input of a sample: its type, and the range [low, high) that its values are drawn from."""

    type: TensorType
    low: float = -2.0
    high: float = 2.0


def example(dtype: DType, *dims: ExprLike | str, low: float = -2.0, high: float = 2.0) -> Example:
    """An input of ``dims``; a dimension in letters is a symbol."""
    if dtype == boolean:
        low, high = 0, 2
    shape = tuple(Var(d) if isinstance(d, str) else as_expr(d) for d in dims)
    return Example(TensorType(shape, len(shape), dtype), low, high)


Samples = Iterator[tuple["Op", tuple[Example, ...]]]


@cache
def snake_case(name: str) -> str:
    """``MaxPool2d`` in the text's spelling: ``max_pool2d``."""
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


class Op(ABC):
    """A pure operation on tensors. A subclass is a frozen dataclass; its fields are its attributes.

    Fields hold what the text can say: ints, floats, bools, strings, None, dtypes, types,
    expressions, and tuples of these. A subclass gives ``infer``, ``reference``, ``samples``, and
    ``lower`` (to loops) or ``decompose`` (to other ops), and ``vjp`` unless it sets
    ``differentiable = False``.
    """

    differentiable: ClassVar[bool] = True

    @classmethod
    def op_name(cls) -> str:
        """The name in the text: the class's own, in snake case."""
        return snake_case(cls.__name__)

    @abstractmethod
    def infer(self, *types: TensorType) -> Type | tuple[Type, ...]:
        """The type (or types) of the result; raises TypeMismatch (E01xx) when the operands do not
        fit.
        """

    @abstractmethod
    def reference(self, *arrays: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """The meaning, on NumPy arrays."""

    def lower(self, *types: TensorType) -> TensorFunction | None:
        """The loop program of this operation on operands of known shape, or ``None`` if it
        decomposes instead.
        """
        return None

    def decompose(self, *args: "Traced") -> "Traced | tuple[Traced, ...] | None":
        """The same result by other operations, or ``None`` if it lowers instead."""
        return None

    def unpadded(
        self, *types: TensorType
    ) -> "tuple[tuple[tuple[int, int], ...], float, Op] | None":
        """How much is added before and after each axis of the first operand, with which value, and
        the operation that takes the padded operand; ``None`` if nothing is added.
        """
        return None

    def vjp(
        self, args: "tuple[Traced, ...]", outs: "tuple[Traced, ...]", douts: "tuple[Traced, ...]"
    ) -> "tuple[Traced | None, ...]":
        """The gradients of the operands from those of the results; ``None`` for an operand without
        one.

        A class that does not override this must set ``differentiable = False``.
        """
        raise TypeMismatch("E0190", f"{self.op_name()} has no gradient")

    @classmethod
    @abstractmethod
    def samples(cls) -> Samples:
        """Instances with inputs, small and odd ones, that feed tests, fuzzing and docs."""

    def __call__(self, *args: "Traced") -> "Traced":
        """Apply to values that are being built into a graph; for an operation with one result."""
        return args[0].builder.emit(self, *args)


def fail(op: Op, code: str, message: str, help: str | None = None) -> TypeMismatch:  # noqa: A002
    """The error of an operation on operands that do not fit."""
    return TypeMismatch(code, f"{op.op_name()}: {message}", help=help)
