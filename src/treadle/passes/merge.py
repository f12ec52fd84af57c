"""Join tensor functions that feed each other into one: the values between them become
temporaries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from treadle.base.errors import InternalError
from treadle.expr.scalar import Expr, Var, substitute
from treadle.ir.analysis import allocated, defined
from treadle.ir.tensor import Allocate, Buffer, Stmt, TensorFunction
from treadle.passes.statements import Body, rename_definitions, substitute_body


@dataclass(frozen=True, slots=True)
class Member:
    """A function in a group. ``inputs`` says for each operand where it comes from: ("in", k), the
    k-th input of the whole, or ("member", j), the result of the j-th function. ``symbols`` are the
    values of the function's symbols in the group.
    """

    function: TensorFunction
    inputs: tuple[tuple[str, int], ...]
    symbols: Mapping[Var, Expr]


def merge(name: str, members: Sequence[Member], scalars: tuple[Var, ...]) -> TensorFunction:
    """The function that runs ``members`` in order and returns the results of the last; the others
    have one each, and do not update theirs.

    Its inputs are numbered ``X0``, ``X1``…, the values between members ``T0``, ``T1``…, its results
    ``Y0``, ``Y1``….
    """
    inputs: dict[int, Buffer] = {}
    results: list[Buffer] = []
    outputs: tuple[Buffer, ...] = ()
    body: list[Stmt] = []
    for j, member in enumerate(members):
        f = member.function
        buffers: dict[Buffer, Buffer] = {}
        for buffer, (source, k) in zip(f.input_buffers, member.inputs, strict=True):
            if source == "in" and k not in inputs:
                inputs[k] = _moved(buffer, f"X{k}", member.symbols)
            buffers[buffer] = inputs[k] if source == "in" else results[k]
        last = j == len(members) - 1
        names = [f"Y{k}" for k in range(f.outputs)] if last else [f"T{j}"]
        made = [_moved(b, n, member.symbols) for b, n in zip(f.output_buffers, names, strict=True)]
        buffers.update(zip(f.output_buffers, made, strict=True))
        if last:
            outputs = tuple(made)
        else:
            body.append(Allocate(made[0]))
            results.append(made[0])
        body.extend(_renamed(f, buffers, member.symbols, f"_{j}"))
    params = (*(inputs[k] for k in sorted(inputs)), *outputs, *scalars)
    assumes = tuple(dict.fromkeys(a for m in members for a in m.function.assumes))
    span = members[-1].function.span or members[0].function.span
    updates = _updates(members[-1], sorted(inputs))
    return TensorFunction(name, params, len(outputs), tuple(body), assumes, span, updates)


def _updates(last: Member, inputs: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """What the last of the members updates, among the inputs of the whole."""
    found: list[tuple[int, int]] = []
    for output, operand in last.function.updates:
        source, k = last.inputs[operand]
        if source != "in":
            raise InternalError(f"{last.function.name} updates a value that is computed with it")
        found.append((output, inputs.index(k)))
    return tuple(found)


def _moved(buffer: Buffer, name: str, symbols: Mapping[Var, Expr]) -> Buffer:
    return Buffer(
        name, tuple(substitute(d, symbols) for d in buffer.shape), buffer.dtype, buffer.scope
    )


def _renamed(
    f: TensorFunction, buffers: dict[Buffer, Buffer], symbols: Mapping[Var, Expr], suffix: str
) -> Body:
    """The body of ``f`` over other buffers, what it defines renamed by a suffix."""
    variables = {v: Var(f"{v.name}{suffix}", v.dtype) for v in defined(f.body)}
    own = {b: _moved(b, f"{b.name}{suffix}", symbols) for b in allocated(f.body)}
    body = substitute_body(f.body, {**symbols, **variables}, {**buffers, **own})
    return rename_definitions(body, variables, suffix)
