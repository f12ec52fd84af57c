"""From a graph module to linked code: loops, host function, objects, manifest."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

import treadle
from treadle.codegen.llvm.host import TimedStep, host_text, kernel_steps, timed_steps
from treadle.codegen.llvm.kernel import kernel_text, module_text
from treadle.codegen.llvm.object import compile_objects
from treadle.driver.options import Options
from treadle.driver.pipelines import loop_pipeline, lower_pipeline
from treadle.driver.work import work_of
from treadle.expr.scalar import Expr, Var, const, int_value, substitute
from treadle.expr.simplify import simplify
from treadle.ir.analysis import symbols
from treadle.ir.host import HostFunction, KernelStep, NativeStep
from treadle.ir.module import Constant, Module
from treadle.ir.types import TensorType
from treadle.libraries.library import Lowering
from treadle.passes.inplace import aliased
from treadle.passes.lower_host import NO_NATIVES, lower_host
from treadle.passes.pipeline import Progress
from treadle.passes.plan_memory import byte_size
from treadle.passes.winograd import Approximation, approximations
from treadle_runtime.array import aligned
from treadle_runtime.executable import exports_of
from treadle_runtime.loader import LoadedCode
from treadle_runtime.loader import load as link
from treadle_runtime.manifest import CallSpec, Check, Entry, Manifest, TensorSpec
from treadle_runtime.threads import runtime_symbols

ENTRY = "main"


@dataclass(frozen=True, eq=False)
class Build:
    """What a compilation leaves: the scheduled module, its host function, objects, constants and
    manifest; and where it took the freedom of ``numerics="fast"``.
    """

    module: Module
    host: HostFunction
    objects: tuple[bytes, ...]
    manifest: Manifest
    approximations: tuple[Approximation, ...] = ()

    @property
    def entry(self) -> Entry:
        """The manifest's page on the entry."""
        return self.manifest.entry(ENTRY)

    @property
    def constants(self) -> Mapping[str, np.ndarray]:
        """The constants that the host function names."""
        return {name: self.module.constants[name].array for name in self.host.constants}

    def link(self) -> LoadedCode:
        """Put the objects into this process."""
        return link(self.objects, exports_of(self.entry), runtime_symbols())


def build(
    graph: Module,
    options: Options,
    progress: Progress | None = None,
    natives: Mapping[str, Lowering] = NO_NATIVES,
) -> Build:
    """Compile the entry of a graph module; ``natives`` are the C functions that it may call.

    Raises:
        TreadleError: what a pass, code generation or LLVM refuses.
    """
    target, threads = options.target, options.threads
    pipeline = loop_pipeline(
        target, threads, options.cache, strict=options.strict, fast=options.fast
    )
    module = pipeline.run(graph, dump=options.dump, progress=progress, verify=options.verify)
    host = lower_host(module, ENTRY, natives, static=options.static_memory)
    if progress is not None:
        progress("machine code", len(pipeline.passes), len(pipeline.passes))
    objects = tuple(_objects(module, host, options))
    return Build(
        _with_used_constants(module, host),
        host,
        objects,
        manifest_of(host, module, options.numerics, static_memory=options.static_memory),
        approximations(graph, target=target, threads=threads) if options.fast else (),
    )


def _with_used_constants(module: Module, host: HostFunction) -> Module:
    """The module with only the constants that the host function names, as an executable takes them:
    others are large, and of no more use.
    """
    used = {name: module.constants[name] for name in host.constants}
    return module.with_constants(
        {name: Constant(c.type, aligned(c.array)) for name, c in used.items()}
    )


def _objects(module: Module, host: HostFunction, options: Options) -> list[bytes]:
    """The objects of the kernels and of the host function; only what the cache lacks is lowered and
    compiled.
    """
    cache, target = options.cache, options.target
    names = kernel_names(host)
    texts = [str(module.tensor(name)) for name in names]
    texts.append(module_text([host_text(host, module, target)], "", target))
    rounding = "strict" if options.strict else "contracted"
    shared = aliased_buffers(host, module)
    aliases = [str(sorted(shared[name])) for name in names]
    keys = [
        cache.key("object", text, rounding, alias, *target.key)
        for text, alias in zip(texts, [*aliases, ""], strict=True)
    ]
    found = {key: cache.get(key) for key in keys}
    missing = [name for name, key in zip(names, keys, strict=False) if found[key] is None]
    lowered = lower_pipeline().run(
        module.with_functions(map(module.tensor, missing)), dump=options.dump
    )
    sources = {key: texts[-1] for key in keys[-1:] if found[key] is None}
    for name, key in zip(names, keys, strict=False):
        if found[key] is None:
            kernel = kernel_text(
                lowered.tensor(name), target, contract=not options.strict, aliased=shared[name]
            )
            sources[key] = module_text([kernel], "", target)
    compiled = compile_objects(list(sources.values()), target, options.workers)
    for key, code in zip(sources, compiled, strict=True):
        cache.put(key, code)
        found[key] = code
    return [code for key in keys if (code := found[key]) is not None]


def kernel_names(host: HostFunction) -> list[str]:
    """The kernels that a host function calls, each once."""
    return list(dict.fromkeys(step.kernel for step in kernel_steps(host.steps)))


def aliased_buffers(host: HostFunction, module: Module) -> dict[str, frozenset[int]]:
    """For each kernel the positions of operands and results that share memory in some call."""
    found: dict[str, frozenset[int]] = {}
    for step in kernel_steps(host.steps):
        inputs = len(module.tensor(step.kernel).input_buffers)
        here = aliased(step.buffers, inputs)
        found[step.kernel] = found.get(step.kernel, frozenset()) | here
    return found


def object_texts(module: Module, host: HostFunction, options: Options) -> list[str]:
    """The LLVM modules of a lowered module: the kernels that are called, one each, and the host
    function.
    """
    shared = aliased_buffers(host, module)
    kernels = [
        kernel_text(
            module.tensor(name),
            options.target,
            contract=not options.strict,
            aliased=shared[name],
        )
        for name in kernel_names(host)
    ]
    texts = [module_text([kernel], "", options.target) for kernel in kernels]
    return [*texts, module_text([host_text(host, module, options.target)], "", options.target)]


def manifest_of(
    host: HostFunction, module: Module, numerics: str, *, static_memory: bool = False
) -> Manifest:
    """The manifest of a module with one entry."""
    entry = Entry(
        host.name,
        tuple(_spec(name, type_) for name, type_ in host.inputs),
        tuple(_spec(name, type_) for name, type_ in host.outputs),
        tuple(var.name for var, _ in host.symbols),
        _checks(host),
        tuple(_call(host, module)),
        host.constants,
        host.callbacks,
        tuple(map(str, host.live)),
        tuple(var.name for var in host.sizes),
        tuple(host.stage_of(*type_.dims) for _, type_ in host.outputs) if host.sizes else (),
        host.donated,
    )
    return Manifest(
        (entry,),
        treadle_version=treadle.__version__,
        numerics=numerics,
        static_memory=static_memory,
    )


def _checks(host: HostFunction) -> tuple[Check, ...]:
    """The checks of shapes, then those of values: the order that status codes follow."""
    shapes = (Check(c.text, c.input, c.axis) for c in host.checks)
    values = (
        Check(
            c.message,
            help=c.cure,
            place=None if c.span is None else str(c.span),
            function=c.function,
        )
        for c in host.value_checks
    )
    return (*shapes, *values)


def _spec(name: str, type_: TensorType) -> TensorSpec:
    dims = tuple(str(d) if (value := int_value(d)) is None else value for d in type_.dims)
    return TensorSpec(name, str(type_.dtype), dims)


def _call(host: HostFunction, module: Module) -> list[CallSpec]:
    return [_spec_of(step, module) for step in timed_steps(host.steps)]


def _spec_of(step: TimedStep, module: Module) -> CallSpec:
    if not isinstance(step, KernelStep):
        types = (
            step.types
            if isinstance(step, NativeStep)
            else tuple(t for _, t in (*step.inputs, *step.outputs))
        )
        moved = sum((byte_size(t) for t in types), start=const(0))
        return CallSpec(step.function, step.function, "0", str(simplify(moved)))
    function = module.tensor(step.kernel)
    values: dict[Var, Expr] = dict(zip(symbols(function), step.symbols, strict=True))
    flops, moved = (simplify(substitute(x, values)) for x in work_of(function))
    return CallSpec(step.kernel, step.label, str(flops), str(moved))
