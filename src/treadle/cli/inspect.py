"""``treadle inspect``: signature, operations and memory of a model, or its program at any level."""

from collections import Counter
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from treadle.base.errors import OptionError
from treadle.cli.inputs import parse_dims
from treadle.cli.libraries import libraries_called
from treadle.cli.models import compiled, imported
from treadle.cli.parameters import Dims, LibraryNames, Model, Numerics, Target, Threads
from treadle.cli.report import out, print_approximations, print_library_choices
from treadle.codegen.llvm.host import kernel_steps
from treadle.codegen.llvm.object import assembly
from treadle.driver.build import ENTRY, object_texts
from treadle.driver.executable import Executable
from treadle.driver.libraries import given_libraries
from treadle.driver.options import Options, make_options
from treadle.driver.pipelines import graph_pipeline, loop_pipeline, lower_pipeline
from treadle.ir.module import Module
from treadle.libraries import Library
from treadle.passes.lower_host import lower_host


class Shown(StrEnum):
    """What of a model is shown."""

    graph = "graph"
    loop = "loop"
    device = "device"
    llvm = "llvm"
    asm = "asm"


def inspect(
    model: Model,
    level: Annotated[
        Shown | None, typer.Option("--level", help="Print the program at this level instead.")
    ] = None,
    function: Annotated[
        str | None, typer.Option("--function", help="Only this function of the program.")
    ] = None,
    dims: Dims = None,
    target: Target = "native",
    threads: Threads = None,
    numerics: Numerics = "default",
    libraries: LibraryNames = None,
) -> None:
    """Show the signature, operations and memory of MODEL, or its program at a level."""
    if level is None and function is None:
        exe = compiled(
            model, target=target, threads=threads, numerics=numerics, libraries=libraries
        )
        _summary(exe, parse_dims(dims))
        return
    options = make_options(target, numerics, threads, True)
    texts = _texts(imported(model), level or Shown.graph, options, libraries_called(libraries))
    if function is not None:
        if function not in texts:
            raise OptionError(
                "E0846",
                f"the program has no function '{function}' at this level",
                help=f"use one of: {', '.join(texts)}",
            )
        texts = {function: texts[function]}
    typer.echo("\n\n".join(text.rstrip() for text in texts.values()))


def _texts(
    module: Module, level: Shown, options: Options, libraries: list[Library]
) -> dict[str, str]:
    """The texts of a module's functions at a level, by name."""
    given = given_libraries(libraries)
    graph = graph_pipeline(given.options(options)).run(module)
    if level is Shown.graph:
        return _functions(graph)
    loops = loop_pipeline(
        options.target, options.threads, strict=options.strict, fast=options.fast
    ).run(graph)
    host = lower_host(loops, ENTRY, given.natives)
    kernels = tuple(dict.fromkeys(step.kernel for step in kernel_steps(host.steps)))
    used = loops.with_functions((*loops.graph_functions, *map(loops.tensor, kernels)))
    if level is Shown.loop:
        return _functions(used)
    device = lower_pipeline().run(used)
    if level is Shown.device:
        return _functions(device)
    texts = dict(zip((*kernels, host.name), object_texts(device, host, options), strict=True))
    if level is Shown.llvm:
        return texts
    return {name: assembly(text, options.target) for name, text in texts.items()}


def _functions(module: Module) -> dict[str, str]:
    return {name: str(function) for name, function in module.functions.items()}


def _summary(exe: Executable, dims: dict[str, int]) -> None:
    console = out()
    console.print(exe.signature, markup=False)
    for check in exe.entry.checks:
        console.print(f"  checks {check.text}", markup=False)
    print_approximations(console, exe)
    print_library_choices(console, exe)
    console.print()
    console.print(_operations(exe.module))
    console.print()
    outside = sum(call.kernel in exe.entry.callbacks for call in exe.entry.calls)
    console.print(f"{len(exe.entry.calls) - outside} kernel calls, {outside} library calls")
    if dims or not exe.entry.symbols:
        console.print(str(exe.memory(**dims)), markup=False)
        return
    weights = sum(array.nbytes for array in exe.build.constants.values())
    console.print(f"{'weights':<8}{weights / 2**20:>12.3f} MiB", markup=False)
    example = " ".join(f"--dim {name}=8" for name in exe.entry.symbols)
    console.print(f"arena and peak depend on the shapes: add {example}", markup=False)


def _operations(module: Module) -> Table:
    counts = Counter(b.op.op_name() for f in module.graph_functions for b in f.body)
    table = Table(box=None, pad_edge=False)
    table.add_column("operation")
    table.add_column("count", justify="right")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, str(count))
    return table
