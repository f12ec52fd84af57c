"""Upper bounds of symbolic dimensions that a user declares."""

from collections.abc import Mapping

from treadle.base.errors import OptionError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Var
from treadle.ir.analysis import shape_symbols
from treadle.ir.module import Module

ENTRY = "main"


def with_bounds(module: Module, bounds: Mapping[str, int]) -> Module:
    """The module whose entry assumes that each symbol that ``bounds`` names is at most so much,
    which every call tests.

    Raises:
        OptionError: E0834 for a symbol that the inputs do not have, or a bound that is no natural
            number.
    """
    if not bounds:
        return module
    function = module.graph(ENTRY)
    names = [v.name for v in shape_symbols(function)]
    for name, high in bounds.items():
        if name not in names:
            known = ", ".join(names) or "none"
            raise OptionError(
                "E0834",
                f"bounds names '{name}', which is no symbol of the inputs",
                help=f"the symbols are: {known}",
            )
        if isinstance(high, bool) or not isinstance(high, int) or high < 0:
            raise OptionError(
                "E0834", f"the bound of '{name}' is {high!r}", help="give a natural number"
            )
    facts = tuple(Var(name) <= high for name, high in bounds.items())
    changed = replace_fields(function, assumes=(*function.assumes, *facts))
    return module.with_functions(changed if f is function else f for f in module.functions.values())
