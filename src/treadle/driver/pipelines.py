"""The pipelines, as lists that one can read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from treadle.base.cache import NO_CACHE, DiskCache
from treadle.ir.level import Level
from treadle.ir.module import Module
from treadle.passes.bind_sizes import bind_sizes
from treadle.passes.canonicalize import canonicalize
from treadle.passes.check_calls import check_calls
from treadle.passes.check_indices import check_indices
from treadle.passes.check_sizes import check_sizes
from treadle.passes.deduce_types import deduce_types
from treadle.passes.drop_unused import drop_unused
from treadle.passes.fuse import fuse
from treadle.passes.inline import inline
from treadle.passes.legalize import decompose, legalize
from treadle.passes.lift_workspace import lift_workspace
from treadle.passes.lower_libraries import lower_libraries
from treadle.passes.lower_loops import lower_loops
from treadle.passes.materialize import materialize
from treadle.passes.merge_products import merge_products
from treadle.passes.narrow_products import narrow_products
from treadle.passes.open_entry import open_entry
from treadle.passes.pipeline import Pipeline, module_pass
from treadle.passes.prepare_entry import keep_names, prepare_entry
from treadle.passes.resolve_casts import resolve_casts
from treadle.passes.restore_parts import restore_parts
from treadle.passes.restore_views import restore_views
from treadle.passes.separate_padding import separate_padding
from treadle.passes.sink_reshapes import sink_reshapes
from treadle.passes.winograd import winograd
from treadle.target import Target
from treadle.tune.apply import apply_schedules
from treadle.tune.collapse_axes import collapse_axes
from treadle.tune.layouts import assign_layouts


def lower_all_loops(module: Module) -> Module:
    """Lower every tensor function to finished loops."""
    return module.map_tensor_functions(lower_loops)


_NO_LIBRARIES: Mapping[str, Any] = MappingProxyType({})


def graph_pipeline(libraries: Mapping[str, Any] = _NO_LIBRARIES) -> Pipeline:
    """What is done to the graph, whatever the machine: the result is what an artifact keeps.

    ``libraries`` are the options of ``lower_libraries``: the functions outside that may be called.
    """
    return Pipeline(
        (
            module_pass(keep_names),
            module_pass(open_entry),
            module_pass(deduce_types),
            module_pass(check_calls),
            module_pass(inline),
            module_pass(drop_unused),
            module_pass(deduce_types),
            module_pass(bind_sizes),
            module_pass(resolve_casts),
            module_pass(canonicalize),
            module_pass(lower_libraries).configure(**libraries),
            module_pass(decompose),
            module_pass(check_sizes),
            module_pass(check_indices),
            module_pass(narrow_products),
            module_pass(separate_padding),
            module_pass(sink_reshapes),
            module_pass(canonicalize),
            module_pass(merge_products),
            module_pass(prepare_entry),
            module_pass(materialize),
        )
    )


def loop_pipeline(
    target: Target,
    threads: int,
    cache: DiskCache = NO_CACHE,
    *,
    strict: bool = False,
    fast: bool = False,
) -> Pipeline:
    """From operations to scheduled loop programs for ``target``; with ``strict``, sums keep their
    order; with ``fast``, other algorithms may take the place of what operations say.
    """
    other = (module_pass(winograd).configure(target=target, threads=threads),) if fast else ()
    return Pipeline(
        (
            *other,
            module_pass(legalize, writes=Level.LOOP),
            module_pass(fuse, reads=Level.LOOP).configure(chains=not strict),
            module_pass(restore_views, reads=Level.LOOP),
            module_pass(assign_layouts, reads=Level.LOOP).configure(target=target, cache=cache),
            module_pass(collapse_axes, reads=Level.LOOP).configure(cache=cache),
            module_pass(restore_parts, reads=Level.LOOP),
            module_pass(drop_unused, reads=Level.LOOP),
            module_pass(apply_schedules, reads=Level.LOOP).configure(
                target=target, threads=threads, cache=cache, strict=strict
            ),
            module_pass(lift_workspace, reads=Level.LOOP),
        )
    )


def lower_pipeline() -> Pipeline:
    """From scheduled loop programs to what code is generated from."""
    return Pipeline((module_pass(lower_all_loops, reads=Level.LOOP, writes=Level.DEVICE),))
