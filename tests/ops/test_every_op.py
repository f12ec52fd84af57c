"""The laws that every operation keeps, tried on all its samples."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from treadle.expr.dtype import DType, f64
from treadle.expr.scalar import Const, Var
from treadle.ir.graph import GraphFunction
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.interpret import run, run_tensor
from treadle.ir.interpret.graph import specialize
from treadle.ir.module import Module
from treadle.ir.op import Example, Op
from treadle.ir.parser import parse_function
from treadle.ir.types import TensorType
from treadle.ir.verify import verify_tensor_function
from treadle.ops import OPS, OPS_BY_NAME, GatherNd
from treadle.ops._shapes import same_dims
from treadle.testing import (
    Arrays,
    Sample,
    all_samples,
    assert_close,
    constant_dims,
    reference_results,
    sample_arrays,
    sample_name,
    sample_sizes,
)


def fixed_type(t: TensorType, sizes: Mapping[Var, int]) -> TensorType:
    dims = constant_dims(t.dims, sizes)
    return TensorType(
        tuple(Const(d, v.dtype) for d, v in zip(dims, t.dims, strict=True)), t.ndim, t.dtype
    )


def fits(t: TensorType, shape: tuple[int, ...], sizes: Mapping[Var, int]) -> bool:
    """Whether a result has the shape that a type says, which may be just a rank."""
    if t.shape is None:
        return t.ndim == len(shape)
    return constant_dims(t.dims, sizes) == shape


def as_tuple(x: object) -> tuple:
    return x if isinstance(x, tuple) else (x,)


def build(
    op: Op, types: tuple[TensorType, ...]
) -> tuple[GraphBuilder, list[Traced], tuple[Traced, ...]]:
    builder = GraphBuilder("main")
    args = [builder.input(f"x{k}", t) for k, t in enumerate(types)]
    return builder, args, builder.emit_all(op, *args)


def run_graph(builder: GraphBuilder, function: GraphFunction, arrays: Arrays) -> Arrays:
    return run(Module({"main": function}, dict(builder.constants)), "main", *arrays)


def compiled_meaning(
    op: Op, types: tuple[TensorType, ...], arrays: Arrays, sizes: Mapping[Var, int]
) -> Arrays:
    """What the loops compute, or what the parts compute of an operation that decomposes."""
    function = op.lower(*types)
    if function is not None:
        return run_tensor(function, arrays, sizes)
    # The graph interpreter knows only the symbols of its parameters' shapes.
    op, types = specialize(op, sizes), tuple(fixed_type(t, sizes) for t in types)
    builder = GraphBuilder("main")
    parts = op.decompose(*(builder.input(f"x{k}", t) for k, t in enumerate(types)))
    assert parts is not None, f"{op.op_name()} neither lowers nor decomposes"
    return run_graph(builder, builder.finish(*as_tuple(parts)), arrays)


@pytest.mark.parametrize("sample", list(all_samples()), ids=sample_name)
class TestEveryOp:
    def test_shape_rule_agrees_with_reference(self, sample):
        op, examples = sample
        sizes = sample_sizes(sample)
        arrays = sample_arrays(sample, sizes)
        kept = tuple(a.copy() for a in arrays)
        types = as_tuple(op.infer(*(e.type for e in examples)))
        found = reference_results(op, arrays, sizes)
        assert all(fits(t, y.shape, sizes) for t, y in zip(types, found, strict=True))
        assert [t.dtype.numpy for t in types] == [y.dtype for y in found]
        for a, b in zip(arrays, kept, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_loops_agree_with_reference(self, sample):
        op, examples = sample
        sizes = sample_sizes(sample)
        arrays = sample_arrays(sample, sizes)
        found = compiled_meaning(op, tuple(e.type for e in examples), arrays, sizes)
        assert_close(found, reference_results(op, arrays, sizes))

    def test_symbolic_shape_specializes(self, sample):
        op, examples = sample
        sizes = sample_sizes(sample, 5)
        special = specialize(op, sizes)
        types = tuple(e.type for e in examples)
        general = as_tuple(op.infer(*types))
        exact = as_tuple(special.infer(*(fixed_type(t, sizes) for t in types)))
        assert [None if t.shape is None else constant_dims(t.shape, sizes) for t in general] == [
            None if t.shape is None else constant_dims(t.shape, {}) for t in exact
        ]
        if sizes:
            arrays = sample_arrays(sample, sizes)
            assert_close(
                compiled_meaning(op, types, arrays, sizes), reference_results(special, arrays, {})
            )

    def test_verifies_prints_and_parses(self, sample):
        op, examples = sample
        types = tuple(e.type for e in examples)
        builder, _, outs = build(op, types)
        function = builder.finish(*outs)
        again = parse_function(str(function), OPS_BY_NAME)
        assert str(again) == str(function)
        assert again.body[0].op.infer(*types) == op.infer(*types)
        loops = op.lower(*types)
        if loops is not None:
            verify_tensor_function(loops)
            assert str(parse_function(str(loops))) == str(loops)

    def test_unknown_dimensions_give_a_coarser_type(self, sample):
        op, examples = sample
        known = as_tuple(op.infer(*(e.type for e in examples)))
        unknown = (TensorType(None, e.type.ndim, e.type.dtype) for e in examples)
        if isinstance(op, GatherNd):
            # The last dimension of the positions says what rank the result has.
            unknown = (next(unknown), examples[1].type)
        found = as_tuple(op.infer(*unknown))
        assert [(t.ndim, t.dtype) for t in found] == [(t.ndim, t.dtype) for t in known]


# ---- Gradients


def in_double(value: object) -> object:
    return f64 if isinstance(value, DType) and value.is_float else value


def doubled(sample: Sample, sizes: Mapping[Var, int]) -> Sample:
    """The sample of known shape, all floats in double precision."""
    op, examples = sample
    op = specialize(op, sizes)
    changes = {f.name: in_double(getattr(op, f.name)) for f in dataclasses.fields(op)}
    types = [fixed_type(e.type, sizes) for e in examples]
    wide = [TensorType(t.shape, t.ndim, in_double(t.dtype)) for t in types]
    return type(op)(**changes), tuple(
        Example(t, e.low, e.high) for t, e in zip(wide, examples, strict=True)
    )


def smooth_samples() -> Iterator[Sample]:
    for op, examples in all_samples():
        if op.differentiable and any(e.type.dtype.is_float for e in examples):
            yield op, examples


def smooth_samples_in_double() -> list[Sample]:
    found = (doubled(sample, sample_sizes(sample)) for sample in smooth_samples())
    return list({repr(sample): sample for sample in found}.values())


def gradients_by_vjp(
    op: Op, types: tuple[TensorType, ...], arrays: Arrays, douts: Arrays
) -> list[np.ndarray]:
    builder, args, outs = build(op, types)
    given = tuple(builder.input(f"dy{k}", y.type) for k, y in enumerate(outs))
    grads = op.vjp(tuple(args), outs, given)
    assert len(grads) == len(args)
    found = iter(
        run_graph(builder, builder.finish(*(g for g in grads if g is not None)), (*arrays, *douts))
    )
    return [
        np.zeros(a.shape) if g is None else next(found) for g, a in zip(grads, arrays, strict=True)
    ]


def gradient_by_differences(op: Op, arrays: Arrays, douts: Arrays, which: int) -> np.ndarray:
    def value(x: np.ndarray) -> float:
        outs = reference_results(op, (*arrays[:which], x, *arrays[which + 1 :]), {})
        return sum(
            np.sum(y * dy) for y, dy in zip(outs, douts, strict=True) if y.dtype == np.float64
        )

    step = 1e-5
    result = np.zeros(arrays[which].shape)
    for point in np.ndindex(result.shape):
        up, down = arrays[which].copy(), arrays[which].copy()
        up[point] += step
        down[point] -= step
        result[point] = (value(up) - value(down)) / (2 * step)
    return result


@pytest.mark.parametrize("sample", smooth_samples_in_double(), ids=sample_name)
def test_gradient_agrees_with_differences(sample):
    op, examples = sample
    arrays = sample_arrays(sample, {})
    random = np.random.default_rng(7)
    outs = reference_results(op, arrays, {})
    douts = tuple(random.uniform(0.5, 1.5, y.shape).astype(y.dtype) for y in outs)
    types = tuple(e.type for e in examples)
    for k, found in enumerate(gradients_by_vjp(op, types, arrays, douts)):
        if types[k].dtype == f64:
            expected = gradient_by_differences(op, arrays, douts, k)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("sample", list(smooth_samples()), ids=sample_name)
def test_gradients_have_the_types_of_operands(sample):
    op, examples = sample
    builder, args, outs = build(op, tuple(e.type for e in examples))
    given = tuple(builder.input(f"dy{k}", y.type) for k, y in enumerate(outs))
    for x, g in zip(args, op.vjp(tuple(args), outs, given), strict=True):
        if g is not None:
            assert g.dtype == x.dtype
            assert same_dims(g.shape, x.shape)


@pytest.mark.parametrize("cls", OPS, ids=lambda cls: cls.__name__)
def test_an_op_has_a_gradient_or_says_it_has_none(cls):
    assert not cls.differentiable or cls.vjp is not Op.vjp


@pytest.mark.parametrize("cls", OPS, ids=lambda cls: cls.__name__)
def test_an_op_is_a_frozen_dataclass_with_a_docstring(cls):
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert "__dataclass_fields__" in vars(cls)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{cls.__name__}(")


def test_names_are_unique():
    assert len(OPS_BY_NAME) == len(OPS)
