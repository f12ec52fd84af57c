"""What a tensor intrinsic is: a computation twice, as plain loops and as the machine does it."""

from collections.abc import Mapping
from dataclasses import dataclass

from treadle.base.errors import InternalError
from treadle.ir.parser import parse_function
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.verify import verify_tensor_function
from treadle.target import Target

Needs = tuple[frozenset[str], ...]


def features(*alternatives: tuple[str, ...]) -> Needs:
    """What a target needs: all features of one of several sets."""
    return tuple(frozenset(a) for a in alternatives)


@dataclass(frozen=True, slots=True)
class TensorIntrin:
    """A computation (``description``: loops around one block) and another program for the same
    (``implementation``: statements without blocks).

    Both have the same parameters. A last index of a buffer that the implementation reads as a
    vector must be the last of what takes the buffer's place: neighbours there must be neighbours in
    memory. ``needs`` are sets of features (of ``Target``): with all of one of them the
    implementation is the machine's own instructions; else it computes the same in others. Unless
    ``exact``, it rounds sums of floats in another order than the description. ``scopes`` limits
    where a buffer may live.
    """

    name: str
    description: TensorFunction
    implementation: TensorFunction
    needs: Needs = (frozenset(),)
    exact: bool = True
    scopes: Mapping[str, frozenset[str]] | None = None

    def __str__(self) -> str:
        return f'"{self.name}"'

    def is_native(self, target: Target) -> bool:
        """Whether ``target`` has instructions for this."""
        return any(needed <= target.features for needed in self.needs)

    @property
    def output(self) -> Buffer:
        """The buffer that is written."""
        return self.description.output_buffers[0]


def define(
    name: str,
    description: str,
    implementation: str,
    needs: Needs = (frozenset(),),
    *,
    exact: bool = True,
    scopes: Mapping[str, frozenset[str]] | None = None,
) -> TensorIntrin:
    """The intrinsic that two texts say.

    Raises:
        ParseError: E00xx where a text cannot be read.
        VerifyError: E02xx where it is no valid program.
        InternalError: if their parameters differ, or there is not one result.
    """
    read = [parse_function(text, source=f"<{name}>") for text in (description, implementation)]
    loops, machine = (f for f in read)
    if not isinstance(loops, TensorFunction) or not isinstance(machine, TensorFunction):
        raise InternalError(f"the intrinsic {name} is no loop program")
    for function in (loops, machine):
        verify_tensor_function(function)
    if loops.params != machine.params or (loops.outputs, machine.outputs) != (1, 1):
        raise InternalError(f"the two programs of the intrinsic {name} have other parameters")
    return TensorIntrin(name, loops, machine, needs, exact, scopes)
