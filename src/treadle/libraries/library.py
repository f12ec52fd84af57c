"""Libraries: functions outside of the program, and which parts of a graph they compute."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, TypeAlias

from treadle.base.errors import LoweringError, OptionError
from treadle.expr.bounds import Facts
from treadle.expr.dtype import DType
from treadle.expr.scalar import Const, Expr, Var, as_expr, substitute, variables
from treadle.expr.simplify import simplify
from treadle.ir.types import TensorType
from treadle.libraries.match import Match, fit_shape
from treadle.libraries.pattern import Either, IsConst, IsOp, Leading, Pattern, inside
from treadle.libraries.prototype import Parameter, Prototype, parse_prototype


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A number among the attributes of the operation that ``op`` stands for; ``index`` where the
    attribute is a tuple.
    """

    op: IsOp
    name: str
    index: int | None = None

    def value(self, match: Match) -> object:
        """What the operation that was found holds there."""
        found: Any = getattr(match.op(self.op), self.name)
        return found if self.index is None else found[self.index]


Argument: TypeAlias = "Pattern | Expr | Field | int | float"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number that is passed as ``dtype``; an integer that does not fit stops the program."""

    value: Expr
    dtype: DType


@dataclass(frozen=True, slots=True)
class Pointer:
    """The memory of an operand, counted from 0, or of a result, counted after them."""

    index: int


@dataclass(frozen=True, eq=False)
class Lowering:
    """A pattern, and the function that computes what it stands for.

    Args:
        pattern: an operation, on operations and operands.
        result: the type of what the pattern stands for, as ``tensor`` makes it.
        function: a C prototype, such as ``"int scale(const float *x, float *y, int64_t n)"``, of a
            function that writes its results through pointers and returns nothing, or 0 unless it
            failed; or a Python function on NumPy arrays, which gets the operands to read and the
            result to fill.
        arguments: what is passed for each parameter: operands of the pattern and ``result`` for
            pointers; numbers, and expressions over dimensions, for numbers; ``Field`` for an
            attribute of an operation. A Python function gets the operands in the order of the
            pattern, then the result, unless arguments say another order of the operands.
        name: what the function is called in the program and in the log, within its library; the
            name of the function unless given.
        priority: above 0, the function is used rather than generated code, and rather than others
            of lower priority. With 0 or less it is used only where it was measured to be faster.
        exact: whether results are those of ``numerics="strict"``, where others are not used.

    Raises:
        OptionError: E0850 for a prototype that cannot be read, E0851 for arguments that do not fit.
    """

    pattern: Pattern
    result: Pattern
    function: str | Callable[..., Any]
    arguments: tuple[Argument, ...] = ()
    name: str = ""
    priority: int = 1
    exact: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.function, str):
            self._check_python()
            return
        if len(self.arguments) != len(self._parameters):
            raise self._refusal(
                f"it takes {len(self._parameters)} arguments, and {len(self.arguments)} are given"
            )
        if self.result not in self.arguments:
            raise self._refusal("no argument is the result")
        for i, (argument, parameter) in enumerate(
            zip(self.arguments, self._parameters, strict=True)
        ):
            why = self._misfit(argument, parameter)
            if why is not None:
                raise self._refusal(f"argument {i}, {parameter}: {why}")

    @cached_property
    def prototype(self) -> Prototype | None:
        """The C function; ``None`` for one of Python."""
        return parse_prototype(self.function) if isinstance(self.function, str) else None

    @property
    def returns_status(self) -> bool:
        """Whether the C function says whether it failed."""
        return self.prototype is not None and self.prototype.returns == "status"

    @property
    def _parameters(self) -> tuple[Parameter, ...]:
        return () if self.prototype is None else self.prototype.parameters

    @cached_property
    def label(self) -> str:
        """The name of the function within its library."""
        if self.name:
            return self.name
        if self.prototype is not None:
            return self.prototype.name
        return getattr(self.function, "__name__", "function")

    @cached_property
    def inputs(self) -> tuple[Pattern, ...]:
        """The operands that are passed, each once."""
        given = tuple(a for a in self.arguments if isinstance(a, Pattern) and a is not self.result)
        return tuple(dict.fromkeys(given or (() if self.arguments else _leaves(self.pattern))))

    @cached_property
    def fields(self) -> tuple[tuple[Field, DType], ...]:
        """The attributes that are passed, and as what."""
        return tuple(
            (a, p.dtype)
            for a, p in zip(self.arguments, self._parameters, strict=False)
            if isinstance(a, Field) and p.dtype is not None
        )

    # ---- Checks of what the user wrote

    def _check_python(self) -> None:
        stray = [a for a in self.arguments if not isinstance(a, Pattern)]
        if stray:
            raise self._refusal("a Python function gets arrays only; their shapes are the numbers")
        if self.arguments and self.arguments[-1] is not self.result:
            raise self._refusal("the last argument is the result")

    def _misfit(self, argument: Argument, parameter: Parameter) -> str | None:
        """Why an argument cannot be passed."""
        if isinstance(argument, Pattern):
            return self._misfit_pointer(argument, parameter)
        if parameter.pointer or parameter.dtype is None:
            return "pass an operand of the pattern, or the result"
        if isinstance(argument, Field):
            known = argument.op in inside(self.pattern)
            return None if known else "the operation of this attribute is not in the pattern"
        return self._misfit_number(as_expr(argument), parameter.dtype)

    def _misfit_pointer(self, argument: Pattern, parameter: Parameter) -> str | None:
        if not parameter.pointer:
            return "pass a number"
        if argument is not self.result and argument not in inside(self.pattern):
            return "this operand is not in the pattern"
        if argument.dtype is None or argument.shape is None:
            return "its element type and shape have to be said: use tensor(f32, m, k)"
        if parameter.dtype not in (None, argument.dtype):
            return f"the tensor holds {argument.dtype}"
        return None

    def _misfit_number(self, value: Expr, dtype: DType) -> str | None:
        unknown = [v.name for v in variables(value) if v not in self._dims]
        if unknown:
            return f"'{unknown[0]}' is no dimension of an operand that is passed, nor of the result"
        if isinstance(value, Const):
            kept = Const(value.value, dtype).value == value.value
            whole = dtype.is_float or not value.dtype.is_float
            return None if whole and (kept or dtype.is_float) else f"{value} is no {dtype}"
        if value.dtype.is_int and dtype.is_int:
            return None
        return None if value.dtype == dtype else f"{value} is {value.dtype}; cast it"

    @cached_property
    def _dims(self) -> frozenset[Var]:
        tensors = (*self.inputs, self.result)
        dims = [d for t in tensors for d in t.shape or ()]
        sizes = [d.size if isinstance(d, Leading) else d for d in dims]
        return frozenset(d for d in sizes if isinstance(d, Var))

    def _refusal(self, why: str) -> OptionError:
        shown = self.function if isinstance(self.function, str) else self.label
        return OptionError(
            "E0851",
            f"the arguments of '{self.label}' do not fit",
            notes=(str(shown).strip(), why),
            help="give one argument for each parameter, in the order of the function",
        )

    # ---- Use in a program

    def symbols(self, match: Match) -> tuple[Expr, ...]:
        """The values of the attributes that are passed.

        Raises:
            OptionError: E0851 where an attribute is no number of the parameter's type.
        """
        found: list[Expr] = []
        for f, dtype in self.fields:
            value = f.value(match)
            if isinstance(value, int | float):
                value = Const(value, dtype)
            if not isinstance(value, Expr):
                raise self._refusal(f"the attribute '{f.name}' is {value!r}, which is no number")
            found.append(value)
        return tuple(found)

    def call(
        self,
        inputs: Sequence[TensorType],
        results: Sequence[TensorType],
        symbols: Sequence[Expr],
        facts: Facts,
    ) -> tuple[Pointer | Scalar, ...]:
        """What is passed to the C function in a call with operands of these types.

        Raises:
            LoweringError: E0431 for operands or results that the signature does not allow.
        """
        declared = (*self.inputs, self.result)
        given = (*inputs, *results)
        if len(declared) != len(given) or len(symbols) != len(self.fields):
            raise self._bad_call(
                f"it takes {len(self.inputs)} operands and {len(self.fields)} numbers and gives"
                f" one result; the call has {len(inputs)}, {len(symbols)} and {len(results)}"
            )
        sizes: Mapping[Var, Expr] = {}
        for i, (pattern, type_) in enumerate(zip(declared, given, strict=True)):
            what = f"operand {i}" if i < len(inputs) else "the result"
            fitted = fit_shape(pattern.shape or (), type_, sizes, facts)
            if type_.dtype != pattern.dtype or fitted is None:
                raise self._bad_call(f"{what} is {type_}, and {_type_text(pattern)} is declared")
            sizes = fitted
        return tuple(self._passed(declared, sizes, iter(symbols)))

    def _passed(
        self, declared: tuple[Pattern, ...], sizes: Mapping[Var, Expr], symbols: Iterator[Expr]
    ) -> Iterator[Pointer | Scalar]:
        for argument, parameter in zip(self.arguments, self._parameters, strict=True):
            if isinstance(argument, Pattern):
                yield Pointer(declared.index(argument))
                continue
            assert parameter.dtype is not None
            value = next(symbols) if isinstance(argument, Field) else as_expr(argument)
            value = simplify(substitute(value, sizes))
            if isinstance(value, Const):
                value = Const(value.value, parameter.dtype)
            yield Scalar(value, parameter.dtype)

    def _bad_call(self, why: str) -> LoweringError:
        return LoweringError(
            "E0431",
            f"a call of '{self.label}' does not fit its declaration",
            notes=(str(self.function).strip(), why),
            help="call it with operands of the shapes and element types that are declared",
        )


@dataclass(frozen=True, eq=False)
class Library:
    """Functions under one name, to be handed to ``treadle.compile`` and ``treadle.load``.

    Args:
        name: what programs, logs and artifacts call it, a Python name.
        lowerings: what it computes.
        path: the shared object that holds its C functions, as the system's loader takes it; without
            one they are looked up in the process.

    Raises:
        OptionError: E0852 for a name that is none, or two functions of one name.
    """

    name: str
    lowerings: tuple[Lowering, ...]
    path: "str | PathLike[str] | None" = None

    def __post_init__(self) -> None:
        labels = [x.label for x in self.lowerings]
        for label in (self.name, *labels):
            if not label.isidentifier():
                raise OptionError(
                    "E0852",
                    f"{label!r} cannot name a library or one of its functions",
                    help="use letters, digits and underscores; name=... names a function",
                )
        twice = next((x for x in labels if labels.count(x) > 1), None)
        if twice is not None:
            raise OptionError(
                "E0852",
                f"the library '{self.name}' has two functions '{twice}'",
                help="give one of them another name: Lowering(..., name=...)",
            )

    def full_name(self, lowering: Lowering) -> str:
        """What a program calls a function of this library."""
        return f"{self.name}.{lowering.label}"


def _leaves(pattern: Pattern) -> tuple[Pattern, ...]:
    """The operands of a pattern in the order in which they stand."""
    if isinstance(pattern, IsOp | Either):
        return tuple(dict.fromkeys(leaf for p in pattern.parts for leaf in _leaves(p)))
    return () if isinstance(pattern, IsConst) else (pattern,)


def _type_text(pattern: Pattern) -> str:
    def text(d: object) -> str:
        return f"leading({d.size})" if isinstance(d, Leading) else "..." if d is ... else str(d)

    return f"tensor({', '.join((str(pattern.dtype), *map(text, pattern.shape or ())))})"
