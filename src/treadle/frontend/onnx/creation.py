"""Constants, ranges, shapes as values, and random numbers."""

from typing import Any

import numpy as np

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import DType, boolean, f32, i64
from treadle.expr.scalar import Expr, as_expr
from treadle.frontend.onnx.compose import cast, element_type, full, less
from treadle.frontend.onnx.converter import Converter, converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known, Operand, known_size
from treadle.ir.graph_builder import Traced
from treadle.ops._shapes import product
from treadle.ops.create import Arange, Full
from treadle.ops.random import RandomNormal, RandomUniform
from treadle.ops.shape import Triangular

# A tensor of one value with at most as many elements stays known, so that shapes made of it are,
# too.
SMALL = 1024


@converter("Constant")
def constant(
    *,
    value: np.ndarray | None = None,
    value_float: float | None = None,
    value_floats: tuple[float, ...] | None = None,
    value_int: int | None = None,
    value_ints: tuple[int, ...] | None = None,
    value_string: str | None = None,
    value_strings: tuple[str, ...] | None = None,
    sparse_value: Any = None,
) -> Known:
    """A constant in one of its forms; strings and sparse tensors are refused."""
    if value is not None:
        return Known.of(value)
    for number, dtype in (
        (value_float, f32),
        (value_floats, f32),
        (value_int, i64),
        (value_ints, i64),
    ):
        if number is not None:
            return Known.of(np.array(number, dtype.numpy))
    raise ModelImportError(
        "E0604", "a constant of strings or a sparse one", help="only dense tensors are supported"
    )


def _filled(
    site: Site, shape: tuple[Expr, ...], value: float | bool, dtype: DType
) -> Known | Traced:
    size = known_size(shape)
    if size is not None and size <= SMALL:
        sizes = [int(d.value) for d in shape]  # type: ignore[attr-defined]  (all are constants)
        return Known(np.full(sizes, value, dtype.numpy), dtype)
    return site.emit(Full(shape, value, dtype))


@converter("ConstantOfShape", since=9, sizes=("shape",))
def constant_of_shape(
    site: Site, shape: Known, *, value: np.ndarray | None = None
) -> Known | Traced:
    """One value everywhere; zero of f32 if none is given."""
    found = Known.of(np.zeros(1, np.float32) if value is None else value)
    return _filled(site, shape.sizes(), found.item(), found.dtype)


@converter("Shape")
def shape_of(x: Operand, *, start: int = 0, end: int | None = None) -> Known:
    """Dimensions as a value, from ``start`` to ``end`` as slices count."""
    dims = np.empty(x.ndim, object)
    dims[:] = x.shape
    return Known.symbolic(dims[start:end], i64)


@converter("Size")
def size_of(x: Operand) -> Known:
    """The number of elements."""
    found = np.empty((), object)
    found[()] = product(x.shape)
    return Known.symbolic(found, i64)


@converter("Range", since=11, sizes=("start", "limit"))
def arange(
    site: Site, start: Known, limit: Known, delta: Known, *, stash_type: int = 1
) -> Traced | Known:
    """From start to limit (exclusive) by delta."""
    dtype = start.dtype
    if start.is_concrete and limit.is_concrete and delta.is_concrete:
        first, last, step = start.item(), limit.item(), delta.item()
        count = max(0, int(np.ceil((last - first) / step)))
        if count <= SMALL:
            exact = (
                np.arange(count, dtype=np.float64 if dtype.is_float else np.int64) * step + first
            )
            return Known(exact.astype(dtype.numpy), dtype)
        return site.emit(Arange(first, last, step, dtype))
    return site.emit(Arange(start.expr(), limit.expr(), delta.expr(), dtype))


@converter("EyeLike", since=9)
def eye_like(x: Traced, *, dtype: int | None = None, k: int = 0) -> Traced:
    """Ones on the k-th diagonal."""
    found = x.dtype if dtype is None else element_type(dtype)
    inner = f32 if found == boolean else found
    ones = full(x, x.shape, 1, inner)
    return cast(Triangular(False, k)(Triangular(True, k)(ones)), found)


def _seed(site: Site, seed: float | None) -> int:
    """The model's seed, or one that differs from node to node and is the same in every import."""
    if seed is not None:
        return int(np.float32(seed).view(np.uint32))
    return len(site.builder.body) + 1


@converter("RandomUniform")
def random_uniform(
    site: Site,
    *,
    shape: tuple[int, ...],
    dtype: int = 1,
    low: float = 0.0,
    high: float = 1.0,
    seed: float | None = None,
) -> Traced:
    """Uniform on [low, high)."""
    dims = tuple(as_expr(d) for d in shape)
    return site.emit(RandomUniform(dims, element_type(dtype), low, high, _seed(site, seed)))


@converter("RandomUniformLike")
def random_uniform_like(
    site: Site,
    x: Operand,
    *,
    dtype: int | None = None,
    low: float = 0.0,
    high: float = 1.0,
    seed: float | None = None,
) -> Traced:
    """Uniform, of the shape of another tensor."""
    found = x.dtype if dtype is None else element_type(dtype)
    return site.emit(RandomUniform(x.shape, found, low, high, _seed(site, seed)))


@converter("RandomNormal")
def random_normal(
    site: Site,
    *,
    shape: tuple[int, ...],
    dtype: int = 1,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Traced:
    """Normal with a mean and a standard deviation."""
    dims = tuple(as_expr(d) for d in shape)
    return site.emit(RandomNormal(dims, element_type(dtype), mean, scale, _seed(site, seed)))


@converter("RandomNormalLike")
def random_normal_like(
    site: Site,
    x: Operand,
    *,
    dtype: int | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Traced:
    """Normal, of the shape of another tensor."""
    found = x.dtype if dtype is None else element_type(dtype)
    return site.emit(RandomNormal(x.shape, found, mean, scale, _seed(site, seed)))


@converter("Bernoulli", since=15)
def bernoulli(
    site: Site, x: Traced, *, dtype: int | None = None, seed: float | None = None
) -> Traced:
    """True with the probability that each element is."""
    drawn = site.emit(RandomUniform(x.shape, x.dtype, 0.0, 1.0, _seed(site, seed)))
    return cast(less(drawn, x), x.dtype if dtype is None else element_type(dtype))


CONVERTERS: tuple[Converter, ...] = (
    *(constant, constant_of_shape, shape_of, size_of, arange, eye_like),
    *(random_uniform, random_uniform_like, random_normal, random_normal_like, bernoulli),
)
