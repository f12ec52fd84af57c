"""What a schedule primitive is: data, a check, an effect.

Codes of refusals: E0301 no such name, E0302 the loop's kind, E0303 factors, E0304 loops not in one
chain, E0305 extent not constant, E0306 the loop steps a reduction, E0307 blocks depend on each
other across iterations, E0308 the order of a reduction, E0309 kinds that do not nest, E0310
statements outside blocks, E0311 axes that cannot be told apart, E0312 a split inside an axis, E0320
the block's form, E0321 not a reduction, E0322 the buffer's place, E0323 several writers, E0324
accesses that stand elsewhere, E0325 the store's indices, E0326 the load's indices, E0327 operands
overwritten meanwhile, E0328 the block's condition, E0329 the loop's place, E0332 the combination,
E0340 the index map, E0350 the loop's notes, E0351 padding that would be seen, E0352 a reduction
that would not be started, E0353 the order of axes, E0354 a note, E0355 a thread axis, E0356 the
bindings of a block, E0357 a read that nothing covers, E0360 an index that cannot be copied ahead,
E0361 a region with holes, E0362 a type that does not hold the values, E0363 an index that needs no
work,
E0370 no such intrinsic, E0371 other statements in the loop, E0372 no tile, E0373 a start or a
condition of a tile, E0374 another computation than the intrinsic's, E0375 a buffer that does not
fit one, E0380 a block that is no padding, E0381 loops that are not axes, E0382 a contraction that
cannot be padded, E0383 what to pad to, E0384 windows that do not overlap, E0385 an epilogue that is
no step of the reduction, E0386 a condition that is no comparison of symbols, E0387 branches that
lay out a parameter differently.

What a block reads and writes is computed from its body and never declared, so no instruction
declares or hides an access, as ``annotate_buffer_access`` and ``unsafe_hide_buffer_access`` do
elsewhere. For the same reason ``set_dtype`` is not an unsafe one: it is refused where results could
differ.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields

from treadle.base.errors import ScheduleError
from treadle.ir.op import snake_case
from treadle.ir.printer import Node, annotated_text, quoted
from treadle.ir.tensor import TensorFunction


@dataclass(frozen=True)
class Instruction(ABC):
    """A transformation of one tensor function that never changes what the function computes."""

    @classmethod
    def name(cls) -> str:
        """The name in a trace: the class's own, in snake case."""
        return snake_case(cls.__name__)

    @abstractmethod
    def check(self, function: TensorFunction) -> object:
        """Raise ScheduleError (E03xx) where this does not apply; else return what was found."""

    @abstractmethod
    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function after this instruction, checked first; the given one is unchanged."""

    def refuse(
        self,
        function: TensorFunction,
        node: Node | None,
        code: str,
        message: str,
        notes: Sequence[str] = (),
        hint: str | None = None,
    ) -> ScheduleError:
        """The error that shows ``node`` (or the function) underlined, and the cure ``hint``."""
        shown = function if node is None else node
        span = getattr(shown, "span", None) or function.span
        return ScheduleError(
            code,
            f"{self.name()}: {message}",
            place=None if span is None else str(span),
            excerpt=annotated_text(function, shown),
            notes=tuple(notes),
            help=hint,
        )

    def __str__(self) -> str:
        parts: list[str] = []
        for declared in fields(self):
            value = getattr(self, declared.name)
            if not _has_default(declared):
                parts.append(_value_text(value))
            elif value != declared.default:
                parts.append(f"{declared.name}={_value_text(value)}")
        return f"{self.name()}({', '.join(parts)})"


def _has_default(declared: "Field[object]") -> bool:
    return declared.default is not MISSING


def _value_text(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, tuple):
        inner = ", ".join(_value_text(v) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return str(value)
