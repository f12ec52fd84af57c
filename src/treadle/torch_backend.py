"""The backend behind ``torch.compile(model, backend="treadle")``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_func  # pyright: ignore[reportPrivateImportUsage]
from torch import fx
from torch._decomp import core_aten_decompositions
from torch._dynamo.backends.common import aot_autograd

from treadle.base.errors import OptionError
from treadle.driver import compile as compile_module
from treadle.frontend.torch import import_graph
from treadle.frontend.torch.converters import CONVERTERS
from treadle.ir.types import ShapeType

_OPTIONS = (*("target", "numerics", "threads", "fallback", "cache", "libraries", "measurements"),)


def compile_fx(
    graph: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a graph that Dynamo captured; a backward graph, when training, likewise.

    Parameters stay inputs, so they may change between calls. ``options`` are those of
    ``treadle.compile``; operators without a translation are left to PyTorch unless ``fallback`` is
    ``None``.

    Raises:
        OptionError: E0804 for an option that there is not.
        TreadleError: what the importer and the compiler say.
    """
    settings = {"fallback": "torch", **(options or {})}
    unknown = [name for name in settings if name not in _OPTIONS]
    if unknown:
        raise OptionError(
            "E0804",
            f"torch.compile(backend='treadle') has no option '{unknown[0]}'",
            help=f"the options are {', '.join(_OPTIONS)}",
        )

    def compiler(functional: fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        return make_boxed_func(_compiled(functional, settings))

    table = {
        op: rule for op, rule in core_aten_decompositions().items() if str(op) not in CONVERTERS
    }
    return aot_autograd(fw_compiler=compiler, bw_compiler=compiler, decompositions=table)(
        graph, inputs
    )


def _compiled(graph: fx.GraphModule, settings: Mapping[str, Any]) -> Callable[..., list[Any]]:
    """A function of what the functional graph takes, which returns what it returns."""
    fallback = settings["fallback"] is not None
    module, libraries = import_graph(graph, fallback=fallback)
    outputs = _outputs(graph)
    if not any(isinstance(o, fx.Node) for o in outputs):
        return lambda *_: list(outputs)
    chosen = {name: value for name, value in settings.items() if name != "fallback"}
    given = chosen.pop("libraries", None) or ()
    given = (given,) if isinstance(given, Mapping) else tuple(given)
    executable = compile_module(module, libraries=[libraries, *given], **chosen)
    sized = [isinstance(p.type, ShapeType) for p in module.graph("main").params]
    symbolic = _is_symbolic(graph)

    def run(*arguments: Any) -> list[Any]:
        kept = [a for a, skip in zip(arguments, symbolic, strict=True) if not skip]
        operands = [
            torch.tensor([a]) if size else a.detach().contiguous()
            for a, size in zip(kept, sized, strict=True)
        ]
        found = executable(*operands)
        results = iter(found if isinstance(found, tuple | list) else (found,))
        return [_restored(o, results) if isinstance(o, fx.Node) else o for o in outputs]

    return run


def _outputs(graph: fx.GraphModule) -> tuple[Any, ...]:
    (node,) = graph.graph.find_nodes(op="output")
    return tuple(node.args[0])


def _is_symbolic(graph: fx.GraphModule) -> list[bool]:
    """Which arguments the program finds in the shapes of others, so that they are not passed."""
    placeholders = graph.graph.find_nodes(op="placeholder")
    values = [n.meta["val"] for n in placeholders]
    dims = {str(d) for v in values if isinstance(v, torch.Tensor) for d in v.shape}
    return [not isinstance(v, torch.Tensor) and _is_known(v, dims) for v in values]


def _is_known(value: Any, dims: set[str]) -> bool:
    return not isinstance(value, torch.SymInt) or str(value) in dims


def _restored(output: fx.Node, results: Any) -> Any:
    found = next(results)
    return found if isinstance(output.meta["val"], torch.Tensor) else found.item()
