"""Operators without a converter, run by PyTorch itself on arrays that share their memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from treadle.expr.scalar import Expr
from treadle.frontend.torch.dtypes import to_numpy, to_tensor
from treadle.ir.graph_builder import Traced

Library = Callable[..., tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Slot:
    """The place of an operand of the library call among the arguments of the operator."""

    index: int
    scalar: bool


def operands_of(
    node: fx.Node, value_of: Callable[[Any], Any], literal: Callable[[Expr], Traced]
) -> tuple[list[Traced], list[Any], Any]:
    """The tensors and symbolic numbers among a node's arguments; then the arguments with slots in
    their places, flattened, and their tree.
    """
    leaves, tree = pytree.tree_flatten((node.args, node.kwargs))
    operands: list[Traced] = []
    template: list[Any] = []
    for leaf in leaves:
        value = value_of(leaf) if isinstance(leaf, fx.Node) else leaf
        if isinstance(value, Traced | Expr):
            template.append(Slot(len(operands), isinstance(value, Expr)))
            operands.append(literal(value) if isinstance(value, Expr) else value)
        else:
            template.append(value)
    return operands, template, tree


def library_function(operator: Callable[..., Any], template: list[Any], tree: Any) -> Library:
    """A function of NumPy arrays that calls the operator with them in its arguments' slots."""

    def call(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        def filled(leaf: Any) -> Any:
            if not isinstance(leaf, Slot):
                return leaf
            array = arrays[leaf.index]
            return array.item() if leaf.scalar else to_tensor(array)

        args, kwargs = pytree.tree_unflatten([filled(x) for x in template], tree)
        with torch.no_grad():
            result = operator(*args, **kwargs)
        results = result if isinstance(result, tuple | list) else (result,)
        return tuple(to_numpy(r.contiguous()) for r in results)

    return call
