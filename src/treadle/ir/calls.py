"""Operations that name functions, and the cast that introduces symbols: the joints of a module.

Their types are written on them, so that deduction needs no look at the callee's body.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from treadle.base.errors import InternalError
from treadle.expr.dtype import i64
from treadle.expr.scalar import Expr, Var
from treadle.ir.op import Op, Samples, fail
from treadle.ir.types import TensorType, Type


class FunctionOp(Op):
    """An operation whose meaning is other functions of the module; the interpreter knows how to run
    each.
    """

    differentiable: ClassVar[bool] = False

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        """Only the interpreter, which sees the module, can say."""
        raise InternalError(f"{self.op_name()} has no meaning outside a module")

    @classmethod
    def samples(cls) -> Samples:
        """None: a sample would need a module around it."""
        return iter(())


@dataclass(frozen=True)
class Call(FunctionOp):
    """Call the graph function ``function``; ``out`` are the types of its results here."""

    function: str
    out: tuple[Type, ...]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        """What the call says."""
        return self.out


@dataclass(frozen=True)
class CallTensor(FunctionOp):
    """Allocate the outputs, then run the tensor function ``function`` in destination-passing style.

    ``symbols`` are the values of the function's scalar parameters, in order. The symbols in the
    shapes of its buffers are found by matching the arguments' shapes.
    """

    function: str
    out: tuple[TensorType, ...]
    symbols: tuple[Expr, ...] = ()

    def infer(self, *types: Type) -> tuple[Type, ...]:
        """What the call says."""
        return self.out


@dataclass(frozen=True)
class CallLibrary(FunctionOp):
    """The same for a function outside the module, known to the run time by ``function``: a name, or
    ``library.name``. ``symbols`` are numbers that it is passed besides.

    One that is not ``pure`` does something besides: it runs whether or not its results are used, as
    often as it is written, and in the order in which such calls are written.
    """

    function: str
    out: tuple[TensorType, ...]
    symbols: tuple[Expr, ...] = ()
    pure: bool = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        """What the call says."""
        return self.out


@dataclass(frozen=True)
class MatchCast(FunctionOp):
    """Assert that the operand has type ``type``, whose new symbols it binds; checked when the
    program runs. Errors: E0107, E0131.
    """

    type: TensorType

    def infer(self, *types: Type) -> Type:
        """What was asserted."""
        (given,) = types
        if not isinstance(given, TensorType):
            raise fail(self, "E0107", f"a tensor was expected, not {given}")
        if (given.dtype, given.ndim) != (self.type.dtype, self.type.ndim):
            raise fail(self, "E0131", f"{given} is never {self.type}")
        return self.type


@dataclass(frozen=True)
class AssertTrue(FunctionOp):
    """Stop the program unless the operand, a bool of rank 0, is true; the result is the operand.

    ``message`` says what is wrong with the inputs then, and ``cure`` what to do. Errors: E0103,
    E0107.
    """

    message: str
    cure: str | None = None

    def infer(self, *types: Type) -> Type:
        """The operand's type."""
        (type_,) = types
        if not isinstance(type_, TensorType) or type_.ndim:
            raise fail(self, "E0107", f"the condition must have rank 0, not {type_}")
        if not type_.dtype.is_bool:
            raise fail(self, "E0103", f"the condition must be of bool, not {type_.dtype}")
        return type_


@dataclass(frozen=True)
class BindSymbol(FunctionOp):
    """Let ``symbol``, new here, be the operand, an i64 of rank 0 that the program computes; the
    result is the operand.

    The program stops unless every claim in ``where`` holds of it. Where the symbol is a dimension,
    one of them is that it is not negative.
    Errors: E0103, E0107, E0108.
    """

    symbol: Expr
    where: tuple[Expr, ...] = ()

    @property
    def variable(self) -> Var:
        """The symbol."""
        if not isinstance(self.symbol, Var):
            raise fail(self, "E0108", f"{self.symbol} is no symbol", "write symbol=u")
        return self.symbol

    def infer(self, *types: Type) -> Type:
        """The operand's type."""
        (type_,) = types
        if not isinstance(type_, TensorType) or type_.ndim:
            raise fail(self, "E0107", f"a size must have rank 0, not {type_}")
        if type_.dtype != i64 or self.variable.dtype != i64:
            raise fail(self, "E0103", f"a size must be i64, not {type_.dtype}", "insert a cast")
        return type_


@dataclass(frozen=True)
class Cond(FunctionOp):
    """Call ``then`` or ``orelse`` on the operands but the first, which is a bool of rank 0."""

    then: str
    orelse: str
    out: tuple[Type, ...]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        """What both branches give."""
        return self.out


@dataclass(frozen=True)
class WhileLoop(FunctionOp):
    """Run ``body`` on the carried values while ``condition`` of them holds.

    The first ``carried`` operands are carried: ``body`` returns their next values, of the same
    types. The rest are passed to both functions unchanged.
    """

    condition: str
    body: str
    carried: int
    out: tuple[Type, ...]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        """The types of the carried values."""
        return self.out


CALLS: tuple[type[FunctionOp], ...] = (
    *(Call, CallTensor, CallLibrary, MatchCast, AssertTrue, BindSymbol, Cond, WhileLoop),
)
CHECKS = (MatchCast, AssertTrue, BindSymbol)
"""What a program does for the sake of checking, though nothing may use its result."""
