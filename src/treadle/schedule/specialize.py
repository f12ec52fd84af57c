"""Other schedules for other sizes: a function whose body asks first how large its symbols are."""

from dataclasses import dataclass

from treadle.base.errors import ParseError
from treadle.base.rewrite import replace_fields
from treadle.expr.facts import negated
from treadle.expr.scalar import Apply, Expr, Var, int_value, substitute, variables
from treadle.ir.analysis import symbols
from treadle.ir.parser import parse_function
from treadle.ir.tensor import If, TensorFunction
from treadle.schedule.copies import Names, copied
from treadle.schedule.instruction import Instruction
from treadle.schedule.nest import map_exprs, with_body


@dataclass(frozen=True)
class Specialize(Instruction):
    """Run the function by one schedule where ``condition`` holds and by another where it does not.

    ``condition`` is a comparison of the function's symbols, such as ``"n <= 8"``. The body becomes
    ``if n <= 8: ... else: ...``: each branch is the whole body, brought on its way by the
    instructions of ``then`` or ``orelse``, which may rely on the condition or on its opposite.
    Where ``condition`` is ``n == 1``, so many iterations are written instead of ``n``. Names in the
    first branch end in ``_then``. Both branches must leave every parameter in the same layout.
    ``orelse`` may specialize further. Let it be the only instruction on the function: what follows
    would have to name loops of one branch.

    Errors: E0386 the condition is no comparison of the function's symbols; E0387 the branches want
    different layouts of a parameter; and what the instructions of the branches refuse.
    """

    condition: str
    then: tuple[Instruction, ...] = ()
    orelse: tuple[Instruction, ...] = ()

    def check(self, function: TensorFunction) -> tuple[Expr, TensorFunction, TensorFunction]:
        """The condition, and the functions that the branches come from."""
        claim = self._claim(function)
        opposite = None if claim is None else negated(claim)
        if claim is None or opposite is None:
            listed = ", ".join(v.name for v in symbols(function))
            raise self.refuse(
                function,
                None,
                "E0386",
                f"{self.condition!r} is no comparison of the function's symbols",
                hint=f"the symbols are {listed}" if listed else "the function has no symbols",
            )
        return claim, assuming(function, claim), assuming(function, opposite)

    def apply(self, function: TensorFunction) -> TensorFunction:
        """The function that chooses between the branches."""
        condition, then, orelse = self.check(function)
        for instruction in self.then:
            then = instruction.apply(then)
        for instruction in self.orelse:
            orelse = instruction.apply(orelse)
        return self.joined(function, condition, then, orelse)

    def joined(
        self,
        function: TensorFunction,
        condition: Expr,
        then: TensorFunction,
        orelse: TensorFunction,
    ) -> TensorFunction:
        """The function that chooses between branches that are on their way already."""
        for here, there in zip(then.params, orelse.params, strict=True):
            if here is not there:
                raise self.refuse(
                    function,
                    None,
                    "E0387",
                    f"the branches lay out '{here.name}' in different orders",
                    hint="apply the same transform_layout to it in both",
                )
        body = copied(then.body, "_then", Names(orelse))
        chosen = If(condition, body, orelse.body, function.span)
        return replace_fields(with_body(orelse, (chosen,)), assumes=function.assumes)

    def _claim(self, function: TensorFunction) -> Expr | None:
        """The condition, if it is a comparison of symbols."""
        known = {v.name: v for v in symbols(function)}
        dims = "".join(f"{name}, " for name in known)
        text = f"@tensor.function\ndef f(X: Output[({dims}), i64]):\n    assume({self.condition})\n"
        try:
            read = parse_function(text)
        except ParseError:
            return None
        claims = read.assumes
        if len(claims) != 1 or not isinstance(claims[0], Apply) or not variables(claims[0]):
            return None
        return claims[0]


def assuming(function: TensorFunction, claim: Expr) -> TensorFunction:
    """The function for callers that keep ``claim`` besides; what ``claim`` says a symbol is takes
    the symbol's place in the body.
    """
    value = _equation(claim)
    body = function.body
    if value is not None:
        body = map_exprs(body, lambda e: substitute(e, value))
    return replace_fields(with_body(function, body), assumes=(*function.assumes, claim))


def _equation(claim: Expr) -> dict[Var, Expr] | None:
    """The value that a claim gives a variable."""
    if not isinstance(claim, Apply) or claim.fn != "eq":
        return None
    var, value = claim.args
    return {var: value} if isinstance(var, Var) and int_value(value) is not None else None
