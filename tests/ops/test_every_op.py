"""The laws that every operation keeps, tried on all its samples."""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from treadle.expr.dtype import DType, f64
from treadle.expr.scalar import Const, Expr, Var, substitute, variables
from treadle.expr.simplify import simplify
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

Sample = tuple[Op, tuple[Example, ...]]
Arrays = tuple[np.ndarray, ...]

# Relative and absolute, by dtype: a few units in the last place of what is computed.
_TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5, "float64": 1e-10}


def all_samples() -> Iterator[Sample]:
    for cls in OPS:
        yield from cls.samples()


def name_of(sample: object) -> str:
    op, examples = sample
    fields = ",".join(str(getattr(op, f.name)) for f in dataclasses.fields(op))
    return (
        f"{op.op_name()}({fields})-{','.join(str(e.type).removeprefix('Tensor') for e in examples)}"
    )


def symbols_of(sample: Sample) -> set[Var]:
    op, examples = sample
    dims = [d for e in examples for d in e.type.dims]
    found = set(variables(*dims))
    pending = [getattr(op, f.name) for f in dataclasses.fields(op)]
    while pending:
        value = pending.pop()
        if isinstance(value, tuple):
            pending.extend(value)
        elif isinstance(value, Expr):
            found.update(variables(value))
    return found


def sizes_of(sample: Sample, base: int = 3) -> dict[Var, int]:
    return {v: base + ord(v.name[0]) % 3 for v in symbols_of(sample)}


def fixed(dims: tuple[Expr, ...], sizes: Mapping[Var, int]) -> tuple[int, ...]:
    known = {v: Const(n, v.dtype) for v, n in sizes.items()}
    return tuple(simplify(substitute(d, known)).value for d in dims)


def fixed_type(t: TensorType, sizes: Mapping[Var, int]) -> TensorType:
    dims = fixed(t.dims, sizes)
    return TensorType(
        tuple(Const(d, v.dtype) for d, v in zip(dims, t.dims, strict=True)), t.ndim, t.dtype
    )


def draw(sample: Sample, sizes: Mapping[Var, int]) -> Arrays:
    op, examples = sample
    random = np.random.default_rng(zlib.crc32(repr((op, examples)).encode()))
    return tuple(draw_one(random, e, fixed(e.type.dims, sizes)) for e in examples)


def draw_one(random: np.random.Generator, e: Example, shape: tuple[int, ...]) -> np.ndarray:
    dtype = e.type.dtype
    if dtype.is_float:
        return random.uniform(e.low, e.high, shape).astype(dtype.numpy)
    return np.asarray(random.integers(int(e.low), int(e.high), shape)).astype(dtype.numpy)


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


def assert_close(found: Arrays, expected: Arrays) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        tolerance = _TOLERANCE.get(b.dtype.name)
        if tolerance is None:
            np.testing.assert_array_equal(a, b)
        else:
            wide = (x.astype(np.float64) for x in (a, b))
            np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


def reference(op: Op, arrays: Arrays) -> Arrays:
    with np.errstate(all="ignore"):
        return tuple(np.asarray(y) for y in as_tuple(op.reference(*arrays)))


@pytest.mark.parametrize("sample", list(all_samples()), ids=name_of)
class TestEveryOp:
    def test_shape_rule_agrees_with_reference(self, sample):
        op, examples = sample
        sizes = sizes_of(sample)
        arrays = draw(sample, sizes)
        kept = tuple(a.copy() for a in arrays)
        types = as_tuple(op.infer(*(e.type for e in examples)))
        found = reference(specialize(op, sizes), arrays)
        assert [fixed(t.dims, sizes) for t in types] == [y.shape for y in found]
        assert [t.dtype.numpy for t in types] == [y.dtype for y in found]
        for a, b in zip(arrays, kept, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_loops_agree_with_reference(self, sample):
        op, examples = sample
        sizes = sizes_of(sample)
        arrays = draw(sample, sizes)
        found = compiled_meaning(op, tuple(e.type for e in examples), arrays, sizes)
        assert_close(found, reference(specialize(op, sizes), arrays))

    def test_symbolic_shape_specializes(self, sample):
        op, examples = sample
        sizes = sizes_of(sample, 5)
        special = specialize(op, sizes)
        types = tuple(e.type for e in examples)
        general = as_tuple(op.infer(*types))
        exact = as_tuple(special.infer(*(fixed_type(t, sizes) for t in types)))
        assert [fixed(t.dims, sizes) for t in general] == [fixed(t.dims, {}) for t in exact]
        if sizes:
            arrays = draw(sample, sizes)
            assert_close(compiled_meaning(op, types, arrays, sizes), reference(special, arrays))

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
    found = (doubled(sample, sizes_of(sample)) for sample in smooth_samples())
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
        outs = reference(op, (*arrays[:which], x, *arrays[which + 1 :]))
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


@pytest.mark.parametrize("sample", smooth_samples_in_double(), ids=name_of)
def test_gradient_agrees_with_differences(sample):
    op, examples = sample
    arrays = draw(sample, {})
    random = np.random.default_rng(7)
    outs = reference(op, arrays)
    douts = tuple(random.uniform(0.5, 1.5, y.shape).astype(y.dtype) for y in outs)
    types = tuple(e.type for e in examples)
    for k, found in enumerate(gradients_by_vjp(op, types, arrays, douts)):
        if types[k].dtype == f64:
            expected = gradient_by_differences(op, arrays, douts, k)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("sample", list(smooth_samples()), ids=name_of)
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
