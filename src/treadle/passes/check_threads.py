"""Loops over the threads of a GPU have no meaning on a processor without them."""

from treadle.base.errors import LoweringError
from treadle.ir.analysis import statements
from treadle.ir.printer import annotated_text
from treadle.ir.tensor import THREAD_AXES, For, TensorFunction


def check_threads(function: TensorFunction) -> TensorFunction:
    """The function as it is, if no loop of it is bound to a thread axis.

    Raises:
        LoweringError: E0404 at a loop that is.
    """
    for stmt in statements(function.body):
        if isinstance(stmt, For) and stmt.kind in THREAD_AXES:
            raise LoweringError(
                "E0404",
                f"the loop '{stmt.var}' runs on {stmt.kind}, and this target has no such threads",
                place=None if stmt.span is None else str(stmt.span),
                excerpt=annotated_text(function, stmt),
                help="make the loop parallel, or leave it serial",
            )
    return function
