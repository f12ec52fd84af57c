"""What must hold after every pass: the rules of programs, and types that can be deduced again.

Slow, so it is an option of the runner, for tests and for finding a pass that breaks something.
"""

from treadle.base.errors import InternalError, TreadleError
from treadle.ir.analysis import facts_of
from treadle.ir.calls import FunctionOp, MatchCast
from treadle.ir.graph import Binding, GraphFunction
from treadle.ir.module import Module
from treadle.ir.signature import Fit, fit
from treadle.ir.tensor import TensorFunction
from treadle.ir.verify import verify_graph_function, verify_tensor_function
from treadle.passes.deduce_types import result_types


def recheck(module: Module, before: Module, name: str) -> None:
    """Check a module that the pass ``name`` made of ``before``; functions that stayed are known.

    Raises:
        InternalError: if a function breaks a rule, or a recorded type is not what the operation
            gives for its operands.
    """
    for f in module.functions.values():
        if before.functions.get(f.name) is f:
            continue
        try:
            if isinstance(f, TensorFunction):
                verify_tensor_function(f)
            else:
                verify_graph_function(f, module)
                check_deduced(f, module)
        except TreadleError as error:
            raise InternalError(f"after the pass '{name}': {error}") from error


def check_deduced(function: GraphFunction, module: Module) -> None:
    """Deduce all types of a function forward, and compare with what is recorded.

    A call writes down its results' types: the program tests what the signature does not show.

    Raises:
        InternalError: where the deduced type does not show the recorded one.
    """
    facts = facts_of(function)
    for b in function.body:
        if isinstance(b.op, MatchCast):
            continue
        least = Fit.CHECKED if isinstance(b.op, FunctionOp) else Fit.SURE
        for v, found in zip(b.outputs, result_types(b, b.args, module), strict=True):
            if fit(found, v.type, facts) < least:
                raise InternalError(_message(function, b, str(v.type), str(found)))


def _message(function: GraphFunction, b: Binding, recorded: str, found: str) -> str:
    what = f"{b.outputs[0].name} = {b.op.op_name()}(...)"
    return f"in '{function.name}', {what}: {recorded} is recorded, and {found} is deduced"
