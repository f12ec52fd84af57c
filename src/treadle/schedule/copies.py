"""Copies of statements in one function: whatever they define gets a name of its own."""

from treadle.base.rewrite import Rewriter, replace_fields
from treadle.expr.scalar import Var, substitute
from treadle.ir.analysis import allocated, blocks, defined, fresh_name, names
from treadle.ir.tensor import Block, Buffer, TensorFunction
from treadle.schedule.nest import Body, map_exprs, with_buffers


class Names:
    """The names in use in a function, and new ones."""

    def __init__(self, function: TensorFunction) -> None:
        self._taken = set(names(function))
        self._titles = {b.name for b in blocks(function)}

    def fresh(self, hint: str) -> str:
        """A name for a variable or buffer, taken from now on."""
        name = fresh_name(hint, self._taken)
        self._taken.add(name)
        return name

    def fresh_title(self, hint: str) -> str:
        """A name for a block, taken from now on."""
        name = fresh_name(hint, self._titles)
        self._titles.add(name)
        return name


def copied(body: Body, suffix: str, taken: Names) -> Body:
    """The statements once more, for use beside the first ones: names that they define get
    ``suffix``.
    """
    variables = {v: Var(taken.fresh(f"{v.name}{suffix}"), v.dtype) for v in defined(body)}
    buffers = {
        b: Buffer(taken.fresh(f"{b.name}{suffix}"), b.shape, b.dtype, b.scope)
        for b in allocated(body)
    }
    renamed = _Titles(suffix, taken).rewrite(with_buffers(body, buffers))
    return map_exprs(renamed, lambda e: substitute(e, variables))


class _Titles(Rewriter):
    def __init__(self, suffix: str, taken: Names) -> None:
        self.suffix, self.taken = suffix, taken

    def rewrite_block(self, node: Block) -> Block:
        inner = self.generic(node)
        return replace_fields(inner, name=self.taken.fresh_title(f"{node.name}{self.suffix}"))
