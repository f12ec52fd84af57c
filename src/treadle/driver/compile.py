"""``treadle.compile`` and ``treadle.load``."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from treadle.base.errors import ModelImportError
from treadle.driver.build import ENTRY, build
from treadle.driver.executable import Executable
from treadle.driver.options import make_options
from treadle.driver.pipelines import graph_pipeline
from treadle.driver.stored import StoredConstants
from treadle.ir.graph import GraphFunction
from treadle.ir.module import Module
from treadle.ir.parser import parse
from treadle.ir.verify import verify
from treadle.ops import OPS_BY_NAME
from treadle.passes.pipeline import Progress
from treadle.target import Target
from treadle_runtime import artifact
from treadle_runtime.stored import StoredWeights

Libraries = Mapping[str, Callable[..., Any]]


def compile(  # noqa: A001  (the word that users expect)
    model: Any,  # noqa: ANN401  (a model of any of the front ends)
    example_inputs: tuple[Any, ...] | None = None,
    *,
    dynamic_shapes: Any = None,  # noqa: ANN401  (as torch.export takes it)
    target: str | Target = "native",
    numerics: str = "default",
    threads: int | None = None,
    fallback: str | None = None,
    libraries: Libraries | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Executable:
    """Compile a model for this machine.

    Args:
        model: an ``nn.Module`` (with ``example_inputs``), a ``torch.export.ExportedProgram``, the
            path of an ONNX file (or its ``ModelProto``), the path of a text of Treadle's own
            (``.py``), or a ``treadle.ir.module.Module``.
        example_inputs: positional inputs that a PyTorch module is traced with.
        dynamic_shapes: which of their dimensions may vary, in the notation of ``torch.export``.
        target: ``native`` or an architecture level, such as ``x86-64-v3``.
        numerics: ``default``, results up to rounding and the order of sums; ``strict``, sums in the
            order of the loops that define each operation, and every product rounded before it is
            added; ``fast``, as ``default`` with algorithms of larger error where they save time,
            which ``Executable.approximations`` lists.
        threads: how many threads a call uses; all cores unless given.
        fallback: ``"torch"`` runs operators that Treadle lacks through PyTorch.
        libraries: Python functions by name for ``call_library``.
        constants: values of inputs of an ONNX model, by name, that the program is compiled for: it
            no longer takes these inputs. Shapes of the model may depend on them.
        cache: whether schedules and objects are kept on disk for the next time.
        progress: called with the name of each stage, its number, and how many there are.

    Raises:
        TreadleError: what is wrong with the model or the options, and the cure.
    """
    options = make_options(target, numerics, threads, cache)
    module, found = import_model(model, example_inputs, dynamic_shapes, fallback, constants)
    require_entry(module)
    graph = graph_pipeline().run(module, dump=options.dump, progress=progress)
    built = build(graph, options, progress)
    return Executable(
        graph, built, threads=options.threads, libraries={**found, **(libraries or {})}
    )


def load(
    path: str | os.PathLike[str],
    *,
    target: str | Target = "native",
    threads: int | None = None,
    libraries: Libraries | None = None,
    cache: bool = True,
) -> Executable:
    """Load a model that ``Executable.save`` wrote; it is compiled from its text, which the disk
    cache makes quick, with the option ``numerics`` that it was compiled with.

    Raises:
        RuntimeFault: E0711 to E0714, E0720 for a file that is missing, damaged or of another
            version.
    """
    contents = artifact.read(path)
    options = make_options(target, contents.manifest.numerics, threads, cache)
    graph = parse(contents.module_text, OPS_BY_NAME, contents.weights, source=str(path))
    built = build(graph, options)
    graph = graph.with_constants(StoredConstants(graph.constants, StoredWeights(path)))
    return Executable(graph, built, threads=options.threads, libraries=libraries)


def import_model(
    model: Any,  # noqa: ANN401
    example_inputs: tuple[Any, ...] | None,
    dynamic_shapes: Any,  # noqa: ANN401
    fallback: str | None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> tuple[Module, Libraries]:
    """The module of a model of any kind, and the functions that its library calls name.

    Raises:
        ModelImportError: E0608 for constants of another model than one of ONNX, E0610 for something
            that is no model, E0611 for a path that is missing or of an unknown kind; what the front
            end says.
        VerifyError: E02xx for a module or text that breaks the rules of programs.
    """
    origin = type(model).__module__.partition(".")[0]
    by_path = isinstance(model, str | os.PathLike)
    if constants and origin != "onnx" and not (by_path and Path(model).suffix == ".onnx"):
        raise ModelImportError(
            "E0608",
            "constants are values of inputs of an ONNX model, and this is none",
            help="compile without constants",
        )
    if isinstance(model, Module):
        verify(model)
        return model, {}
    if by_path:
        return _import_path(Path(model), constants or {})
    if origin == "onnx":
        from treadle.frontend.onnx import import_module as import_onnx

        imported = import_onnx(model, constants=constants or {})
        return imported.module, imported.libraries
    if hasattr(model, "state_dict") or origin == "torch":
        from treadle.frontend.torch import import_module as import_torch

        imported = import_torch(model, example_inputs, dynamic_shapes, fallback)
        return imported.module, imported.libraries
    raise ModelImportError(
        "E0610",
        f"{type(model).__name__} is not a model",
        help="pass an nn.Module with example_inputs, an ExportedProgram, or an .onnx file",
    )


def _import_path(path: Path, constants: Mapping[str, np.ndarray]) -> tuple[Module, Libraries]:
    if not path.is_file():
        raise ModelImportError(
            "E0611", f"there is no file '{path}'", help="name a file that exists"
        )
    if path.suffix == ".onnx":
        from treadle.frontend.onnx import import_module

        imported = import_module(path, constants=constants)
        return imported.module, imported.libraries
    if path.suffix == ".py":
        return _parsed(path), {}
    if path.suffix == ".treadle":
        contents = artifact.read(path)
        return parse(contents.module_text, OPS_BY_NAME, contents.weights, source=str(path)), {}
    raise ModelImportError(
        "E0611",
        f"'{path}' is of no kind that Treadle reads",
        help="pass an .onnx file, a .treadle file, or a .py file of Treadle's text",
    )


def _parsed(path: Path) -> Module:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelImportError(
            "E0611",
            f"'{path}' cannot be read as text",
            notes=(str(error),),
            help="pass a .py file of Treadle's text",
        ) from error
    module = parse(text, OPS_BY_NAME, source=str(path))
    verify(module)
    return module


def require_entry(module: Module) -> None:
    """Refuse a module without an entry.

    Raises:
        ModelImportError: E0619 unless the module has a graph function ``main``.
    """
    if not isinstance(module.functions.get(ENTRY), GraphFunction):
        known = ", ".join(f.name for f in module.graph_functions) or "none"
        raise ModelImportError(
            "E0619",
            f"the module has no graph function '{ENTRY}'",
            notes=(f"its graph functions: {known}",),
            help=f"call the function that is to run '{ENTRY}'",
        )
