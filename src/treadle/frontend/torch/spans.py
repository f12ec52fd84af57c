"""Where in the user's program a node of an fx graph comes from."""

import re

from torch import fx

from treadle.base.span import Span

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*\n?(?P<text>[^\n]*)')


def span_of(node: fx.Node) -> Span:
    """The innermost line that PyTorch recorded of the node; the node's name where there is none."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    if not frames:
        return Span("<fx graph>", text=node.name)
    last = frames[-1]
    text = last["text"].strip().removeprefix("code: ")
    return Span(last["file"], int(last["line"]), text=text or None)
