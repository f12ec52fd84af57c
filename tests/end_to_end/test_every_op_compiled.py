"""The sixth law of every operation: its machine code agrees with its reference, on all samples."""

import numpy as np
import pytest

from treadle.expr.dtype import f32
from treadle.expr.scalar import Const, Expr
from treadle.ir.analysis import shape_symbols
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.module import Module
from treadle.passes.specialize_calls import substituted
from treadle.target import Target
from treadle.testing import (
    Sample,
    all_samples,
    assert_close,
    compiled_here,
    reference_results,
    sample_arrays,
    sample_name,
    sample_sizes,
)

SAMPLES = list(all_samples())


def module_of(sample: Sample) -> Module:
    """The operation alone; what it needs of sizes besides its operands' shapes is filled in."""
    op, examples = sample
    builder = GraphBuilder("main")
    inputs = [builder.input(f"x{k}", e.type) for k, e in enumerate(examples)]
    function = builder.finish(*builder.emit_all(op, *inputs))
    known = set(shape_symbols(function))
    sizes = sample_sizes(sample).items()
    free: dict[Expr, Expr] = {v: Const(n, v.dtype) for v, n in sizes if v not in known}
    return Module({"main": substituted(function, free)}, builder.constants)


def check(sample: Sample, target: str) -> None:
    sizes = sample_sizes(sample)
    arrays = sample_arrays(sample, sizes)
    kept = [a.copy() for a in arrays]
    found = compiled_here(module_of(sample), target)(*arrays)
    found = found if isinstance(found, tuple) else (found,)
    assert_close(found, reference_results(sample[0], arrays, sizes))
    for a, b in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("sample", SAMPLES, ids=sample_name)
def test_machine_code_agrees_with_reference(sample):
    check(sample, "native")


def largest_single_samples() -> list[Sample]:
    """For every operation the sample with most f32 operands and dimensions."""
    found: dict[str, Sample] = {}
    for op, examples in SAMPLES:
        if any(e.type.dtype == f32 for e in examples):
            best = found.setdefault(op.op_name(), (op, examples))
            if rank(examples) > rank(best[1]):
                found[op.op_name()] = (op, examples)
    return list(found.values())


def runs_here(target: Target) -> bool:
    here = Target.native()
    return target.arch == here.arch and target.features <= here.features


def rank(examples) -> tuple[int, int]:
    return len(examples), sum(e.type.ndim for e in examples)


OLDER = [t for t in ("x86-64-v2", "x86-64-v3") if runs_here(Target.parse(t))]


@pytest.mark.parametrize("target", OLDER)
@pytest.mark.parametrize("sample", largest_single_samples(), ids=sample_name)
def test_machine_code_for_older_processors_agrees_with_reference(sample, target):
    check(sample, target)
