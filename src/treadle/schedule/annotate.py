"""Notes at loops and blocks, for passes that know their names."""

import keyword
import math
from dataclasses import dataclass

from treadle.base.rewrite import replace_fields
from treadle.ir.tensor import Annotation, Block, For, TensorFunction
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import locate_target, replaced


@dataclass(frozen=True)
class Annotate(Instruction):
    """Leave a note at a loop, or at a block where no loop has the name: ``key`` is an identifier,
    ``value`` a text, a number or a truth value.

    The note is printed with the loop or block and travels with it; it changes no result. Passes
    leave notes that they do not know alone. A note of the same key is replaced. A loop with notes
    is not split, fused, merged or cut, which would lose them.

    Errors: E0301 there is no loop and no block of this name; E0354 the key or the value.
    """

    target: str
    key: str
    value: Annotation

    def check(self, function: TensorFunction) -> "For | Block":
        """The loop or the block."""
        node = locate_target(self, function, self.target)
        if not self.key.isidentifier() or keyword.iskeyword(self.key):
            raise self.refuse(
                function, node, "E0354", f"'{self.key}' is no key", hint="give an identifier"
            )
        plain = isinstance(self.value, Annotation)
        if not plain or (isinstance(self.value, float) and not math.isfinite(self.value)):
            raise self.refuse(
                function,
                node,
                "E0354",
                f"{self.value!r} is no value of an annotation",
                hint="give a text, a finite number or a truth value",
            )
        return node

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function with the note."""
        node = self.check(function)
        noted = tuple(sorted((dict(node.annotations) | {self.key: self.value}).items()))
        return replaced(function, (node, (replace_fields(node, annotations=noted),)))


@dataclass(frozen=True)
class Unannotate(Instruction):
    """Take a note from a loop, or from a block where no loop has the name.

    Errors: E0301 there is no loop and no block of this name; E0354 it has no such note.
    """

    target: str
    key: str

    def check(self, function: TensorFunction) -> "For | Block":
        """The loop or the block."""
        node = locate_target(self, function, self.target)
        known = [key for key, _ in node.annotations]
        if self.key not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            raise self.refuse(
                function, node, "E0354", f"'{self.target}' has no note '{self.key}'", hint=listed
            )
        return node

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function without the note."""
        node = self.check(function)
        noted = tuple((key, value) for key, value in node.annotations if key != self.key)
        return replaced(function, (node, (replace_fields(node, annotations=noted),)))
