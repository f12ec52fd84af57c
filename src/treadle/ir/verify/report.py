"""What the verifier says of a broken rule.

Codes: E0201 a name twice, E0202 a name without meaning here, E0203 a loop program's types, E0204 a
name that the text cannot hold, E0205 a recorded type that inference contradicts, E0206 a function
or constant that is missing or of another signature, E0207 a block's axis that leaves its domain,
E0208 axes that are not independent, E0209 a register without a constant index, E0210 an input that
is written.
"""

from collections.abc import Iterable

from treadle.base.errors import VerifyError
from treadle.ir.module import Function
from treadle.ir.printer import Node, annotated_text


def refusal(
    code: str,
    message: str,
    function: Function,
    node: Node,
    *,
    help: str | None = None,  # noqa: A002  (the word that the message uses)
    notes: Iterable[str] = (),
) -> VerifyError:
    """The error at ``node``, with the lines around it."""
    span = getattr(node, "span", None) or function.span
    return VerifyError(
        code,
        f"{function.name}: {message}",
        place=None if span is None else str(span),
        excerpt=annotated_text(function, node),
        notes=tuple(notes),
        help=help,
    )
