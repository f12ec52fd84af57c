"""The notation of ``Einsum``: labels of operands and of the result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_letters

from treadle.ir.op import Op
from treadle.ops._shapes import check_field

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """Labels of each operand and of the result. What an ellipsis stands for has labels of its own,
    aligned at the right.
    """

    terms: tuple[Labels, ...]
    result: Labels

    def __str__(self) -> str:
        letters = dict(zip(self.labels, ascii_letters, strict=False))
        sides = ("".join(letters[x] for x in side) for side in (*self.terms, self.result))
        *left, right = sides
        return f"{','.join(left)}->{right}"

    @property
    def labels(self) -> Labels:
        """Every label once, in order of appearance."""
        return distinct(x for term in self.terms for x in term)

    @property
    def is_direct(self) -> bool:
        """Whether one loop nest that multiplies at most two elements says it all.

        That is one operand, or two without repeated labels in which every label alone in one is
        kept.
        """
        if len(self.terms) == 1:
            return True
        if len(self.terms) != 2 or any(len(set(t)) < len(t) for t in self.terms):
            return False
        shared = set(self.terms[0]) & set(self.terms[1])
        return all(x in shared or x in self.result for x in self.labels)


def distinct(labels: Iterable[str]) -> Labels:
    """The labels, each once, in order of appearance."""
    return tuple(dict.fromkeys(labels))


def parse_equation(op: Op, text: str, ranks: Sequence[int]) -> Equation:
    """Read an equation for operands of these ranks.

    Raises:
        TypeMismatch: E0108 if it is malformed, or does not fit the operands' number or ranks.
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    sides = left.split(",")
    check_field(
        op, len(sides) == len(ranks), f"'{text}' is for {len(sides)} operands, not {len(ranks)}"
    )
    terms = tuple(_labels(op, side, rank) for side, rank in zip(sides, ranks, strict=True))
    counts: dict[str, int] = {}
    for label in (x for t in terms for x in t):
        counts[label] = counts.get(label, 0) + 1
    hidden = sorted((x for x in counts if x not in ascii_letters), key=int, reverse=True)
    if arrow:
        before, dots, after = right.partition("...")
        _check_letters(op, before + after)
        result = (*before, *(hidden if dots else ()), *after)
    else:
        result = (*hidden, *sorted(x for x, n in counts.items() if n == 1 and x in ascii_letters))
    check_field(op, len(set(result)) == len(result), f"'{text}' repeats a label in the result")
    check_field(
        op, set(result) <= set(counts), f"'{text}' has a label in the result that no operand has"
    )
    check_field(op, len(counts) <= len(ascii_letters), f"'{text}' has too many labels")
    return Equation(terms, result)


def _labels(op: Op, side: str, rank: int) -> Labels:
    before, dots, after = side.partition("...")
    _check_letters(op, before + after)
    hidden = rank - len(before) - len(after)
    fits = hidden >= 0 if dots else hidden == 0
    check_field(op, fits, f"'{side}' does not fit an operand of rank {rank}")
    # Labels of the ellipsis count from the right, so that operands of different ranks align.
    return (*before, *(str(k) for k in range(hidden - 1, -1, -1)), *after)


def _check_letters(op: Op, letters: str) -> None:
    check_field(
        op, all(x in ascii_letters for x in letters), f"'{letters}' has labels that are no letters"
    )
