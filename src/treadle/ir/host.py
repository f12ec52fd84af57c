"""Host functions: what an entry does, step by step, once memory is planned."""

from collections.abc import Iterable
from dataclasses import dataclass

from treadle.base.node import node
from treadle.base.span import Span
from treadle.expr.scalar import Expr, Var, variables
from treadle.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class InputSlot:
    """The memory of the k-th input of the entry."""

    index: int


@dataclass(frozen=True, slots=True)
class OutputSlot:
    """The memory of the k-th output of the entry."""

    index: int


@dataclass(frozen=True, slots=True)
class ConstantSlot:
    """The memory of a constant of the module."""

    name: str


@dataclass(frozen=True, slots=True)
class ArenaSlot:
    """Memory ``offset`` bytes into the arena of a stage."""

    offset: Expr
    stage: int = 0


WholeSlot = InputSlot | OutputSlot | ConstantSlot | ArenaSlot


@dataclass(frozen=True, slots=True)
class PartSlot:
    """Memory ``offset`` bytes into other memory."""

    whole: WholeSlot
    offset: Expr


Slot = WholeSlot | PartSlot


@node
class KernelStep:
    """Run a tensor function: pointers to its buffers, inputs first, then the values of its
    symbols.
    """

    kernel: str
    buffers: tuple[Slot, ...]
    symbols: tuple[Expr, ...]
    label: str
    span: Span | None = None


@node
class LibraryStep:
    """Run an external function on tensors: inputs, then the outputs that it writes."""

    function: str
    inputs: tuple[tuple[Slot, TensorType], ...]
    outputs: tuple[tuple[Slot, TensorType], ...]
    span: Span | None = None


@node
class NativeStep:
    """Call a C function: memory and numbers in the order of its parameters. It returns nothing, or
    an int, which makes the value check number ``check`` fail unless it is 0. ``types`` are those of
    its operands and results.
    """

    function: str
    arguments: tuple[Slot | Expr, ...]
    types: tuple[TensorType, ...]
    check: int | None
    span: Span | None = None


@node
class CopyStep:
    """Copy ``size`` bytes."""

    source: Slot
    target: Slot
    size: Expr


@node
class BranchStep:
    """Run one list of steps or the other, by the bool at ``condition``."""

    condition: Slot
    then: "tuple[Step, ...]"
    orelse: "tuple[Step, ...]"


@node
class CheckStep:
    """Stop with the host function's value check number ``check`` unless the bool at ``condition``,
    or the claim about symbols that it is, holds.
    """

    condition: Slot | Expr
    check: int


@node
class LoopStep:
    """Run ``test``; while the bool at ``condition`` then holds, run ``body`` and ``test`` again."""

    test: "tuple[Step, ...]"
    condition: Slot
    body: "tuple[Step, ...]"


@node
class SizeStep:
    """Let ``symbol`` be the i64 at ``source``, if every claim of it holds: else stop with the value
    check beside the claim. A new stage begins: what is as large as the symbol says gets its memory.
    """

    symbol: Var
    source: Slot
    claims: tuple[tuple[Expr, int], ...]


Step = (
    KernelStep | LibraryStep | NativeStep | CopyStep | CheckStep | SizeStep | BranchStep | LoopStep
)


@dataclass(frozen=True, slots=True)
class ShapeCheck:
    """A claim about the shapes of the inputs that every call tests; ``input`` and ``axis`` say of
    which dimension.
    """

    claim: Expr
    text: str
    input: int | None = None
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class ValueCheck:
    """What is wrong, and the cure, when a test of values fails while the program runs; or which
    ``function`` of a library failed.
    """

    message: str
    cure: str | None = None
    span: Span | None = None
    function: str | None = None


@node
class HostFunction:
    """An entry: its signature, how its symbols follow from the inputs' shapes, what it checks, and
    its steps.

    ``symbols`` pairs each symbolic variable with its value over the raw dimensions, written
    ``dim_<input>_<axis>``. ``live`` are the bytes of the arena that are in use at once: the largest
    of them is what its plan cannot do without.

    ``sizes`` are the symbols that values give while it runs, in the order of the ``SizeStep``s,
    which stand among ``steps`` and not inside of others. Each begins a stage with an arena of its
    own: ``arena`` is that of the first, ``later`` those of the others.

    ``donated`` are pairs of numbers of an output and of the input in whose memory it lies.
    """

    name: str
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[tuple[str, TensorType], ...]
    symbols: tuple[tuple[Var, Expr], ...]
    checks: tuple[ShapeCheck, ...]
    constants: tuple[str, ...]
    callbacks: tuple[str, ...]
    arena: Expr
    steps: tuple[Step, ...]
    value_checks: tuple[ValueCheck, ...] = ()
    live: tuple[Expr, ...] = ()
    sizes: tuple[Var, ...] = ()
    later: tuple[Expr, ...] = ()
    donated: tuple[tuple[int, int], ...] = ()

    def stage_of(self, *xs: Expr) -> int:
        """The first stage in which expressions have values."""
        return stage_of(self.sizes, xs)


def stage_of(sizes: tuple[Var, ...], xs: Iterable[Expr]) -> int:
    """The number of leading ``sizes`` that must be known to evaluate ``xs``."""
    used = set(variables(*xs))
    return max((k + 1 for k, v in enumerate(sizes) if v in used), default=0)


def dimension(index: int, axis: int) -> Var:
    """The raw size of an input along an axis, before symbols are known."""
    return Var(f"dim_{index}_{axis}")
