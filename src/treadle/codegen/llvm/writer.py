"""The text of one LLVM function under construction.

Code is written into nested scopes: the function, its loops, its branches. While the body of a loop
is written, the scope around it is still open just before the loop, so that a value that does not
change in the loop can be put there: this is where loop-invariant code motion happens, LLVM runs no
such pass on our text.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from treadle.codegen.llvm.types import Operand, vector_of
from treadle.target import Target

ScopeKind = Literal["function", "loop", "branch"]
MathKey = tuple[str, int, int]


@dataclass(slots=True)
class Parts:
    """What a kernel needs beside its own function: each line or definition once.

    ``contract``: whether ``a * b + c`` may be rounded once instead of twice.
    """

    contract: bool = True
    declares: dict[str, None] = field(default_factory=dict[str, None])
    math: dict[MathKey, None] = field(default_factory=dict[MathKey, None])
    support: dict[str, str] = field(default_factory=dict[str, str])
    functions: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Scope:
    """Code that runs together: its lines so far, the block they end in, the values known there."""

    kind: ScopeKind
    label: str
    lines: list[str] = field(default_factory=list[str])
    values: dict[object, Operand] = field(default_factory=dict[object, Operand])
    frees: list[Operand] = field(default_factory=list[Operand])


class Writer:
    """Appends instructions to the current scope and names their results."""

    def __init__(self, target: Target, parts: Parts) -> None:
        self.target = target
        self.parts = parts
        self.prologue: list[str] = []
        self.scopes = [Scope("function", "entry")]
        self.current = self.scopes[0]
        self._count = 0
        self._dummy: Operand | None = None

    @property
    def depth(self) -> int:
        """The number of the innermost open scope."""
        return len(self.scopes) - 1

    def fresh(self, hint: str = "v") -> str:
        """A name that is not in use."""
        self._count += 1
        return f"{hint}{self._count}"

    def emit(self, line: str) -> None:
        """Append an instruction that has no result."""
        self.current.lines.append(f"  {line}")

    def assign(self, kind: str, text: str) -> Operand:
        """Append an instruction; its result is of LLVM type ``kind``."""
        self._count += 1
        name = f"%v{self._count}"
        self.current.lines.append(f"  {name} = {text}")
        return Operand(kind, name)

    def start_block(self, label: str) -> None:
        """Begin a basic block in the current scope."""
        self.current.lines.append(f"{label}:")
        self.current.label = label

    @contextmanager
    def at(self, depth: int) -> Generator[None]:
        """Write into the open scope number ``depth`` for a while."""
        before = self.current
        self.current = self.scopes[depth]
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def inside(self, kind: ScopeKind, label: str) -> Generator[Scope]:
        """Open a scope whose code starts in block ``label``; the caller places its lines."""
        scope = Scope(kind, label)
        before = self.current
        self.scopes.append(scope)
        self.current = scope
        try:
            yield scope
        finally:
            self.scopes.pop()
            self.current = before

    def op(self, instruction: str, a: Operand, b: Operand) -> Operand:
        """A binary instruction; the result has the operands' type."""
        return self.assign(a.type, f"{instruction} {a}, {b.name}")

    def compare(self, instruction: str, a: Operand, b: Operand) -> Operand:
        """A comparison."""
        return self.assign(with_kind(a.type, "i1"), f"{instruction} {a}, {b.name}")

    def convert(self, instruction: str, a: Operand, kind: str) -> Operand:
        """A conversion to elements of LLVM type ``kind``."""
        result = with_kind(a.type, kind)
        return self.assign(result, f"{instruction} {a} to {result}")

    def select(self, condition: Operand, yes: Operand, no: Operand) -> Operand:
        """``yes`` where the condition holds, else ``no``."""
        return self.assign(yes.type, f"select {condition}, {yes}, {no}")

    def call(self, symbol: str, result: str, *arguments: Operand, flags: str = "") -> Operand:
        """Call a function that has a result; its declaration is up to the caller."""
        listed = ", ".join(map(str, arguments))
        return self.assign(result, f"call {flags}{result} {symbol}({listed})")

    def intrinsic(
        self, name: str, *arguments: Operand, flags: str = "", result: str | None = None
    ) -> Operand:
        """Call the intrinsic ``llvm.name``, overloaded by its first argument's type."""
        first = arguments[0].type
        kind = first if result is None else result
        symbol = f"@llvm.{name}.{overload(first)}"
        self.declare(kind, symbol, *(a.type for a in arguments))
        return self.call(symbol, kind, *arguments, flags=flags)

    def declare(self, result: str, symbol: str, *kinds: str) -> None:
        """Declare an external function or an intrinsic."""
        self.parts.declares[f"declare {result} {symbol}({', '.join(kinds)})"] = None

    def splat(self, x: Operand, lanes: int) -> Operand:
        """A scalar in every lane."""
        if lanes == 1:
            return x
        kind = vector_of(x.type, lanes)
        if not x.name.startswith("%"):
            return Operand(kind, f"splat ({x})")
        first = self.assign(kind, f"insertelement {kind} poison, {x}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.assign(kind, f"shufflevector {first}, {kind} poison, {zeros}")

    def integer(self, number: int, like: Operand) -> Operand:
        """An integer constant of another operand's type."""
        lanes, kind = split_type(like.type)
        text = str(number) if lanes == 1 else f"splat ({kind} {number})"
        return Operand(like.type, text)

    def stack(self, kind: str, align: int, hint: str = "slot") -> Operand:
        """Memory in the function's frame."""
        name = f"%{self.fresh(hint)}"
        self.prologue.append(f"  {name} = alloca {kind}, align {align}")
        return Operand("ptr", name)

    def dummy(self, size: int) -> Operand:
        """Memory that nobody reads, for stores that are masked out."""
        if self._dummy is None:
            self._dummy = self.stack(f"[{size} x i8]", 64, "dummy")
        return self._dummy


def split_type(kind: str) -> tuple[int, str]:
    """Lanes and element type of an LLVM type."""
    if not kind.startswith("<"):
        return 1, kind
    lanes, element = kind[1:-1].split(" x ")
    return int(lanes), element


def with_kind(kind: str, element: str) -> str:
    """The LLVM type with the same number of lanes and another element."""
    return vector_of(element, split_type(kind)[0])


def overload(kind: str) -> str:
    """How intrinsics are named for an LLVM type."""
    lanes, element = split_type(kind)
    name = {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}.get(element, element)
    return name if lanes == 1 else f"v{lanes}{name}"
