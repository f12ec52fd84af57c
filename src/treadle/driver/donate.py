"""The option ``donate``: which inputs of a model give their memory to results."""

from collections.abc import Mapping, Sequence

from treadle.base.errors import OptionError
from treadle.base.rewrite import replace_fields
from treadle.driver.build import ENTRY
from treadle.ir.graph import Atom, GraphFunction
from treadle.ir.module import Module

Donate = Mapping[str, str] | Sequence[str]


def with_donated(module: Module, donate: Donate) -> Module:
    """The module whose entry makes results in the memory of inputs: those that ``donate`` names,
    each with the name of its result, which is the same if it is not said.

    Raises:
        OptionError: E0832 for a name that there is not, for a result of another type, and for
            one that is named twice.
    """
    if not donate:
        return module
    function = module.graph(ENTRY)
    named = donate if isinstance(donate, Mapping) else {n: n for n in donate}
    if isinstance(donate, str) or len(set(named.values())) != len(named):
        raise _refusal(f"donate is {donate!r}", "name inputs, and a result of its own for each")
    pairs = [
        (
            _number("result", result, function.output_names),
            _number("input", name, function.input_names),
        )
        for name, result in named.items()
    ]
    for k, j in pairs:
        _check_types(function, function.results[k], j)
    donated = tuple(sorted({*function.donated, *pairs}))
    changed = replace_fields(function, donated=donated)
    return module.with_functions(changed if f is function else f for f in module.functions.values())


def _number(what: str, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise _refusal(f"there is no {what} '{name}'", f"use one of: {', '.join(names)}")
    return names.index(name)


def _check_types(function: GraphFunction, result: Atom, j: int) -> None:
    param = function.params[j]
    if result.type != param.type:
        name = function.input_names[j]
        message = f"a result of type {result.type} cannot lie in '{name}': {param.type}"
        raise _refusal(message, "donate an input of the result's type")


def _refusal(message: str, cure: str) -> OptionError:
    return OptionError("E0832", message, help=cure)
