"""What the importer knows of an ONNX value: a tensor of the program, a value known now, or both."""

from dataclasses import dataclass

import numpy as np

from treadle.base.errors import InternalError, ModelImportError
from treadle.expr.dtype import DType, from_numpy
from treadle.expr.scalar import Const, Expr, as_expr, cast, int_value
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.rules import broken
from treadle.ir.graph_builder import Traced
from treadle.ir.types import TensorType, tensor


@dataclass(frozen=True, eq=False)
class Known:
    """A value known at import: numbers, or (an array of NumPy's ``object``) scalar expressions.

    ``name`` is that of the constant of the module, if it becomes one. Integers among the
    expressions are i64 whatever ``dtype`` says: they count dimensions.
    """

    array: np.ndarray
    dtype: DType
    name: str = "constant"

    @staticmethod
    def of(array: np.ndarray, name: str = "constant") -> "Known":
        """Numbers; InternalError if the house has no such element type."""
        dtype = from_numpy(array.dtype)
        if dtype is None:
            raise InternalError(f"no element type for {array.dtype}")
        return Known(array, dtype, name)

    @staticmethod
    def symbolic(array: np.ndarray, dtype: DType) -> "Known":
        """Expressions, simplified; plain numbers if all turn out to be constants."""
        exprs = [simplify(as_expr(x)) for x in array.ravel().tolist()]
        if all(isinstance(x, Const) for x in exprs):
            values = [x.value for x in exprs if isinstance(x, Const)]
            return Known(np.array(values, dtype.numpy).reshape(array.shape), dtype)
        found = np.empty(len(exprs), object)
        found[:] = exprs
        return Known(found.reshape(array.shape), dtype)

    @property
    def is_concrete(self) -> bool:
        """Whether it is numbers only."""
        return self.array.dtype != object

    @property
    def type(self) -> TensorType:
        """The type of the tensor that it is."""
        return tensor(self.array.shape, self.dtype)

    def objects(self) -> np.ndarray:
        """The elements as expressions, or Python numbers, in an array of ``object``."""
        if not self.is_concrete:
            return self.array
        found = np.empty(self.array.size, object)
        found[:] = self.array.ravel().tolist()
        return found.reshape(self.array.shape)

    def exprs(self) -> tuple[Expr, ...]:
        """All elements in row-major order, as expressions."""
        return tuple(as_expr(x) for x in self.objects().ravel().tolist())

    def numbers(self) -> np.ndarray:
        """The numbers; ModelImportError E0607 if symbols are among them."""
        if not self.is_concrete:
            raise ModelImportError(
                "E0607",
                f"a number is needed, and the model computes {self.array.tolist()}",
                help="give the model fixed dimensions where these symbols come from",
            )
        return self.array

    def ints(self) -> tuple[int, ...]:
        """The elements as Python integers."""
        return tuple(int(x) for x in self.numbers().ravel().tolist())

    def floats(self) -> tuple[float, ...]:
        """The elements as Python floats."""
        return tuple(float(x) for x in self.numbers().ravel())

    def item(self) -> float:
        """The only number, as Python's; of bfloat16, too."""
        found = self.numbers().ravel()
        if not found.size:
            raise broken("a number is needed, and the tensor is empty")
        return found.astype(np.float64)[0].item() if self.dtype.is_float else found[0].item()

    def integer(self) -> int:
        """The only element as an integer."""
        return int(self.item())

    def sizes(self) -> tuple[Expr, ...]:
        """All elements in row-major order, as dimensions or the like; E0605 unless they are
        integers."""
        if self.dtype.kind not in ("int", "uint"):
            raise broken(f"integers are needed, and the tensor holds {self.dtype}")
        return self.exprs()

    def expr(self) -> Expr:
        """The only element, as an expression of ``dtype``; of dimensions, i64."""
        if not self.array.size:
            raise broken("a number is needed, and the tensor is empty")
        return self.exprs()[0]

    def size(self) -> Expr:
        """The only element as a dimension or the like; E0605 unless it is an integer."""
        return self.sizes()[0] if self.array.size else self.expr()

    def literal(self) -> Expr:
        """The only element as an expression of exactly ``dtype``."""
        if self.is_concrete:
            return Const(self.item(), self.dtype)
        return cast(self.expr(), self.dtype)


@dataclass(frozen=True, eq=False)
class Operand:
    """A value of the ONNX graph.

    ``traced`` is it in the program, unless it is known and nothing has asked for it there.
    ``sources`` are the inputs of the model that its elements (not only its shape) come from. A
    sequence is neither known nor traced; ``items`` are what it holds. An optional value that is not
    there ``is_absent``.
    """

    traced: Traced | None = None
    known: Known | None = None
    sources: frozenset[str] = frozenset()
    items: "tuple[Operand, ...] | None" = None
    is_absent: bool = False

    @property
    def type(self) -> TensorType:
        """The tensor type; ModelImportError E0604 of a sequence."""
        if not self.is_tensor:
            raise no_tensor()
        if self.traced is not None:
            return self.traced.type
        if self.known is None:
            raise InternalError("an operand is neither known nor traced")
        return self.known.type

    @property
    def is_tensor(self) -> bool:
        """Whether it is neither a sequence nor absent."""
        return self.items is None and not self.is_absent

    @property
    def shape(self) -> tuple[Expr, ...]:
        """The dimensions."""
        return self.type.dims

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.type.ndim


def no_tensor() -> ModelImportError:
    """The error of a sequence where a tensor is needed."""
    return ModelImportError(
        "E0604",
        "a sequence, or an optional value that is not there, is used as a tensor",
        help="take its tensors out with SequenceAt or ConcatFromSequence",
    )


class NeedsValue(ModelImportError):
    """A shape depends on what inputs of the model hold: their values are needed to import it.

    ``inputs`` names them; give their values as ``constants``.
    """

    def __init__(self, inputs: tuple[str, ...], what: str, place: str | None) -> None:
        names = ", ".join(f"'{name}'" for name in inputs)
        super().__init__(
            "E0603",
            f"{what} depends on the value of the input {names}",
            place=place,
            help=f"give it: constants={{{', '.join(f'{n!r}: array' for n in inputs)}}}",
        )
        self.inputs = inputs


def known_size(dims: tuple[Expr, ...]) -> int | None:
    """The number of elements of a shape, if it is known."""
    sizes = [int_value(d) for d in dims]
    numbers = [s for s in sizes if s is not None]
    return int(np.prod(numbers, dtype=np.int64)) if len(numbers) == len(sizes) else None
