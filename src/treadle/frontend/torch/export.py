"""From a PyTorch module, or a program that ``torch.export`` captured, to a module of ours."""

import inspect
import logging
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.utils import _pytree as pytree

from treadle.base.errors import ModelImportError
from treadle.base.rewrite import replace_fields
from treadle.frontend.torch.converters import CONVERTERS
from treadle.frontend.torch.dtypes import from_torch, to_numpy
from treadle.frontend.torch.fallback import Library
from treadle.frontend.torch.functional import is_functional
from treadle.frontend.torch.graph import GraphTranslator, Importing
from treadle.frontend.torch.symbols import Symbols, range_facts
from treadle.ir.graph import GraphFunction
from treadle.ir.graph_builder import Traced
from treadle.ir.module import Module

_LOG = logging.getLogger(__name__)
_ENTRY = "main"


@dataclass(frozen=True, eq=False)
class Imported:
    """A module whose entry is ``main``, and the functions that its library calls name."""

    module: Module
    libraries: Mapping[str, Library]


def import_module(
    model: torch.nn.Module | ExportedProgram,
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    fallback: str | None = None,
) -> Imported:
    """Import a PyTorch model for inference.

    ``example_inputs`` are the positional arguments of ``forward`` (a mapping: its keyword
    arguments), and ``dynamic_shapes`` says which dimensions vary, as ``torch.export.export`` takes
    them; a ``Dim``'s name becomes the symbol's. An ``ExportedProgram`` needs neither. A model in
    training mode is captured in evaluation mode, and left as it was.

    The parameters of ``main`` are the tensors among the arguments, flattened in order; its results
    the tensors and numbers that ``forward`` returns, flattened; ``None`` is left out. Parameters
    and buffers of the model become constants that share its memory, so the model must not be
    trained further while the module is in use. A change of a buffer by ``forward`` is dropped,
    with a warning.

    With ``fallback="torch"``, operators without a translation become calls of ``libraries``, which
    run PyTorch.

    Raises:
        ModelImportError: E0601 lists operators without a translation; E0604 for inputs and weights
            that are no tensors of known dtype; E0616 if the export itself fails; E0617 if
            ``forward`` writes to an argument; E0618 for arguments of this function that do not fit.
    """
    if fallback not in (None, "torch"):
        raise ModelImportError(
            "E0618", f"no fallback is called {fallback!r}", help='the only one is "torch"'
        )
    if isinstance(model, ExportedProgram):
        program, names = model, {}
    else:
        program, names = _exported(model, example_inputs, dynamic_shapes)
    program = _decomposed(program)
    return _imported(program, names, fallback == "torch")


@contextmanager
def _evaluating(model: torch.nn.Module) -> Generator[None]:
    """Evaluation mode; afterwards each submodule is as it was."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        yield
    finally:
        for m in training:
            m.training = True


def _exported(
    model: torch.nn.Module,
    inputs: Sequence[Any] | Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> tuple[ExportedProgram, dict[str, str]]:
    if inputs is None:
        raise ModelImportError(
            "E0618",
            "example inputs are needed to capture a module",
            help="pass a tuple of tensors such as the model will be called with",
        )
    args = () if isinstance(inputs, Mapping) else tuple(inputs)
    kwargs = dict(inputs) if isinstance(inputs, Mapping) else {}
    with _evaluating(model), torch.no_grad():
        try:
            program = torch.export.export(
                model,
                args,
                kwargs,
                dynamic_shapes=dynamic_shapes,
                strict=False,
                # What PyTorch cannot show of sizes becomes a fact that a call checks.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        except (UserError, RuntimeError, ValueError, TypeError) as e:
            first, *rest = [line.strip() for line in str(e).splitlines() if line.strip()] or [""]
            raise ModelImportError(
                "E0616",
                f"torch.export cannot capture the model: {first or type(e).__name__}",
                notes=rest[:6],
                help="see PyTorch's message; control flow that depends on data must use torch.cond",
            ) from e
    return program, _symbol_names(program, model, args, kwargs, dynamic_shapes)


def _decomposed(program: ExportedProgram) -> ExportedProgram:
    """Functional, and with every operator that has a converter left whole."""
    if is_functional(program):
        return program
    table = torch.export.default_decompositions()
    for op in list(table):
        if str(op) in CONVERTERS:
            del table[op]
    with warnings.catch_warnings():
        # PyTorch's, about PyTorch: its pytree is copied while the program is rewritten.
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        return program.run_decompositions(table)


def _symbol_names(
    program: ExportedProgram,
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic_shapes: Any,
) -> dict[str, str]:
    """What the user calls PyTorch's symbols: the names of the ``Dim`` objects where they stand."""
    if not dynamic_shapes:
        return {}
    bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    if isinstance(dynamic_shapes, Mapping):
        pairs = [(bound.get(k), spec) for k, spec in dynamic_shapes.items()]
    else:
        pairs = list(zip(bound.values(), dynamic_shapes, strict=False))
    wanted = {id(t): spec for example, spec in pairs for t, spec in _leaves(example, spec)}
    names: dict[str, str] = {}
    flat = pytree.tree_leaves((args, kwargs))
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    inputs = [
        node
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True)
        if spec.kind is InputKind.USER_INPUT
    ]
    for node, example in zip(inputs, flat, strict=False):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            for axis, dim in _named_dims(wanted.get(id(example))):
                size = value.shape[axis]
                if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                    names.setdefault(str(size.node.expr), dim)
    return _distinct(names)


def _leaves(example: Any, spec: Any) -> Iterator[tuple[torch.Tensor, Any]]:
    """Tensors of a nested argument with what was said of their dimensions."""
    if isinstance(example, torch.Tensor):
        yield example, spec
    elif isinstance(example, Mapping) and isinstance(spec, Mapping):
        for key, part in example.items():
            yield from _leaves(part, spec.get(key))
    elif isinstance(example, list | tuple) and isinstance(spec, list | tuple):
        for part, inner in zip(example, spec, strict=False):
            yield from _leaves(part, inner)


def _named_dims(spec: Any) -> Iterator[tuple[int, str]]:
    if isinstance(spec, Mapping):
        pairs = list(spec.items())
    elif isinstance(spec, list | tuple):
        pairs = list(enumerate(spec))
    else:
        return
    for axis, dim in pairs:
        name = getattr(dim, "__name__", None)
        if isinstance(name, str) and name.isidentifier():
            yield axis, name


def _distinct(names: dict[str, str]) -> dict[str, str]:
    """Every name once: of two symbols under one name, the first keeps it."""
    taken: set[str] = set()
    found: dict[str, str] = {}
    for theirs, ours in names.items():
        if ours not in taken:
            taken.add(ours)
            found[theirs] = ours
    return found


def _imported(program: ExportedProgram, names: Mapping[str, str], fallback: bool) -> Imported:
    _refuse_mutation(program)
    importing = Importing(Symbols(names), fallback)
    translator = GraphTranslator(importing, program.graph_module, _ENTRY)
    _enter(translator, program)
    translator.builder.assumes.extend(range_facts(program.range_constraints, importing.symbols))
    results = _results(translator, program)
    importing.constants.update(translator.builder.constants)
    main: GraphFunction = replace_fields(
        translator.builder.finish(*(r for r, _ in results)),
        outputs=tuple(name for _, name in results) if _has_keys(program) else (),
    )
    return Imported(importing.finish(main), importing.libraries)


def _refuse_mutation(program: ExportedProgram) -> None:
    signature = program.graph_signature
    for name in signature.user_inputs_to_mutate.values():
        raise ModelImportError(
            "E0617",
            f"forward writes to its argument '{name}'",
            help="return the new value instead, or clone the argument first",
        )
    for name in signature.buffers_to_mutate.values():
        _LOG.warning("the new value of buffer '%s' is dropped: compiled models have no state", name)


def _enter(translator: GraphTranslator, program: ExportedProgram) -> None:
    """Give every placeholder a value: a parameter of ``main``, or a constant."""
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    specs = program.graph_signature.input_specs
    for node in placeholders:
        translator.symbols.introduce_all(node.meta.get("val"))
    for var in translator.symbols.known.values():
        translator.builder.fresh(var.name)  # values take other names than sizes
    constants: dict[tuple[Any, ...], Traced] = {}
    for node, spec in zip(placeholders, specs, strict=True):
        if spec.kind is InputKind.USER_INPUT:
            translator.parameter(node)
        elif not node.users:
            continue
        elif spec.kind is InputKind.TOKEN or spec.kind is InputKind.CUSTOM_OBJ:
            raise ModelImportError("E0604", f"input '{node.name}' is a {spec.kind.name.lower()}")
        else:
            tensor = _stored(program, spec)
            key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            if tensor.numel() == 0 or key not in constants:
                constants[key] = _constant(translator, spec, tensor)
            translator.values[node] = constants[key]


def _stored(program: ExportedProgram, spec: InputSpec) -> torch.Tensor:
    target = str(spec.target)
    found = program.state_dict.get(target)
    stored = program.constants[target] if found is None else found
    assert isinstance(stored, torch.Tensor)  # objects were refused by their kind
    return stored


def _constant(translator: GraphTranslator, spec: InputSpec, tensor: torch.Tensor) -> Traced:
    name = str(spec.target)
    if from_torch(tensor.dtype) is None:
        raise ModelImportError(
            "E0604",
            f"there is no element type for {tensor.dtype}, which '{name}' has",
            help="convert the model to floats, for example with model.float()",
        )
    return translator.builder.constant(name, to_numpy(tensor.contiguous()))


def _results(translator: GraphTranslator, program: ExportedProgram) -> list[tuple[Traced, str]]:
    """The user's results among what the graph gives, each with its path in what ``forward``
    returns; numbers become tensors of rank 0."""
    values = translator.translate()
    specs = program.graph_signature.output_specs
    given = [v for v, s in zip(values, specs, strict=True) if s.kind is OutputKind.USER_OUTPUT]
    results: list[tuple[Traced, str]] = []
    for value, path in zip(given, _result_paths(program), strict=True):
        if value is not None:
            number = isinstance(value, int | float)
            found = translator.result(translator.symbols.expr(value) if number else value)
            results.append((found, ".".join(map(_key_text, path))))
    return results


def _result_paths(program: ExportedProgram) -> list[tuple[Any, ...]]:
    """Where each result stands in what ``forward`` returns; only its number where that is a class
    that hides it."""
    spec = program.call_spec.out_spec
    count = 1 if spec is None else spec.num_leaves
    if spec is None:
        return [()]
    try:
        leaves, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten([*range(count)], spec))
    except (ValueError, TypeError):
        return [(pytree.SequenceKey(k),) for k in range(count)]
    return [path for path, _ in leaves]


def _has_keys(program: ExportedProgram) -> bool:
    """Whether results have names of their own: ``forward`` returns a dictionary or the like."""
    keys = (pytree.MappingKey, pytree.GetAttrKey)
    return any(isinstance(key, keys) for path in _result_paths(program) for key in path)


def _key_text(key: Any) -> str:
    if isinstance(key, pytree.SequenceKey):
        return str(key.idx)
    return str(key.key if isinstance(key, pytree.MappingKey) else key.name)
