"""``treadle.compile`` and ``treadle.load``."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from treadle.base.errors import ModelImportError
from treadle.driver.bounds import with_bounds
from treadle.driver.build import ENTRY, build
from treadle.driver.donate import Donate, with_donated
from treadle.driver.executable import Executable
from treadle.driver.libraries import Functions, Libraries, given_libraries, saved_choices
from treadle.driver.options import make_options
from treadle.driver.pipelines import graph_pipeline
from treadle.driver.stored import StoredConstants
from treadle.ir.graph import GraphFunction
from treadle.ir.module import Module
from treadle.ir.parser import parse
from treadle.ir.verify import verify
from treadle.libraries.measurements import Measurements
from treadle.ops import OPS_BY_NAME
from treadle.passes.lower_libraries import LibraryChoice
from treadle.passes.pipeline import Progress
from treadle.target import Target
from treadle_runtime import artifact
from treadle_runtime.stored import StoredWeights


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
    measurements: Measurements | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    donate: Donate = (),
    bounds: Mapping[str, int] = MappingProxyType({}),
    static_memory: bool = False,
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
        libraries: the libraries that may compute parts of the model (``treadle.libraries``), which
            ``Executable.library_choices`` lists; or Python functions by name for ``call_library``.
        measurements: times of such parts by library and by generated code, which decide between
            them; without any the priorities decide that the libraries declare.
        constants: values of inputs of an ONNX model, by name, that the program is compiled for: it
            no longer takes these inputs. Shapes of the model may depend on them.
        donate: names of inputs that give their memory away: the result of the same name, or of the
            name that a mapping says, is made there and handed back as the array that was passed.
            Old contents are copied where they are needed longer.
        bounds: the most that symbolic dimensions of the inputs are, by name; calls test it.
        static_memory: one arena of constant size holds whatever a call needs at the largest sizes:
            memory is taken once. Every symbol needs an upper bound.
        cache: whether schedules and objects are kept on disk for the next time.
        progress: called with the name of each stage, its number, and how many there are.

    Raises:
        TreadleError: what is wrong with the model or the options, and the cure.
    """
    options = make_options(target, numerics, threads, cache, static_memory=static_memory)
    module, found = import_model(model, example_inputs, dynamic_shapes, fallback, constants)
    require_entry(module)
    module = with_bounds(with_donated(module, donate), bounds)
    given = given_libraries(libraries, found)
    choices: list[LibraryChoice] = []
    pipeline = graph_pipeline(given.options(options, measurements, choices.append))
    graph = pipeline.run(module, dump=options.dump, progress=progress, verify=options.verify)
    given.require(graph)
    built = build(graph, options, progress, given.natives)
    return Executable(
        graph,
        built,
        threads=options.threads,
        callees=given.callees(built.entry.callbacks),
        library_choices=tuple(choices),
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
    cache makes quick, with the options ``numerics`` and ``static_memory`` that it was compiled
    with.

    Raises:
        RuntimeFault: E0711 to E0714, E0720 for a file that is missing, damaged or of another
            version, E0726 for a library that it was compiled with and that is not passed again.
    """
    contents = artifact.read(path)
    manifest = contents.manifest
    options = make_options(
        target, manifest.numerics, threads, cache, static_memory=manifest.static_memory
    )
    graph = parse(contents.module_text, OPS_BY_NAME, contents.weights, source=str(path))
    given = given_libraries(libraries)
    given.require(graph)
    built = build(graph, options, natives=given.natives)
    graph = graph.with_constants(StoredConstants(graph.constants, StoredWeights(path)))
    return Executable(
        graph,
        built,
        threads=options.threads,
        callees=given.callees(built.entry.callbacks),
        library_choices=saved_choices(graph),
    )


def import_model(
    model: Any,  # noqa: ANN401
    example_inputs: tuple[Any, ...] | None,
    dynamic_shapes: Any,  # noqa: ANN401
    fallback: str | None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> tuple[Module, Functions]:
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


def _import_path(path: Path, constants: Mapping[str, np.ndarray]) -> tuple[Module, Functions]:
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
