"""How a reshape finds its source: by groups of dimensions, with plain indices where there are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.expr.dtype import f32
from treadle.expr.scalar import Const, Var, as_expr, substitute
from treadle.expr.simplify import simplify
from treadle.ir.types import tensor
from treadle.ops import Reshape
from treadle.ops.reshape import dim_groups, source_indices

n, m = Var("n"), Var("m")


def exprs(*dims):
    return tuple(as_expr(d) for d in dims)


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ((2, 3, 4), (6, 4), [((0, 1), (0,)), ((2,), (1,))]),
        ((6, 4), (2, 3, 4), [((0,), (0, 1)), ((1,), (2,))]),
        ((1, 5, 1), (5,), [((1,), (0,))]),
        ((4, 6), (8, 3), [((0, 1), (0, 1))]),
        ((n, 6), (n, 2, 3), [((0,), (0,)), ((1,), (1, 2))]),
        ((n, m, 4), (n * m, 4), [((0, 1), (0,)), ((2,), (1,))]),
        ((2, n, 3), (3, n, 2), [((0, 1, 2), (0, 1, 2))]),
        ((n * 12, 5), (n, 3, 4, 5), [((0,), (0, 1, 2)), ((1,), (3,))]),
    ],
)
def test_dimensions_fall_into_the_finest_groups(before, after, groups):
    assert dim_groups(exprs(*before), exprs(*after)) == groups


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((6, 4), (2, 3, 4), "(v0 * 3 + v1, v2)"),
        ((n, 6), (n, 1, 2, 3), "(v0, v2 * 3 + v3)"),
        ((n, 1, 5), (1, n, 5, 1), "(v1, 0, v2)"),
        ((2, 3, 4), (6, 4), "(v0 // 3, v0 % 3, v1)"),
    ],
)
def test_merges_splits_and_ones_have_plain_indices(before, after, expected):
    indices = tuple(Var(f"v{k}") for k in range(len(after)))
    found = source_indices(exprs(*before), exprs(*after), indices)
    assert f"({', '.join(map(str, found))})" == expected


@st.composite
def regroupings(draw):
    """Two factorizations of one number, some of the factors symbolic."""
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    other = draw(st.permutations(factors))
    return merged(draw, factors), merged(draw, other)


def merged(draw, factors):
    shape = [factors[0]]
    for f in factors[1:]:
        if draw(st.booleans()):
            shape[-1] *= f
        else:
            shape.append(f)
    return tuple(shape)


@given(regroupings(), st.integers(0, 3))
def test_source_is_where_numpy_reads(shapes, symbolic):
    before, after = shapes
    size = {n: Const(before[0], n.dtype)}
    # A leading dimension that both shapes share may as well be a symbol.
    shared = symbolic and before[0] == after[0]
    dims = ((n, *before[1:]), (n, *after[1:])) if shared else (before, after)
    indices = tuple(Var(f"v{k}") for k in range(len(after)))
    sources = source_indices(exprs(*dims[0]), exprs(*dims[1]), indices)
    data = np.arange(np.prod(before)).reshape(before)
    expected = data.reshape(after)
    for point in np.ndindex(after):
        at = size | {v: Const(p, v.dtype) for v, p in zip(indices, point, strict=True)}
        assert data[tuple(simplify(substitute(s, at)).value for s in sources)] == expected[point]


def test_sizes_equal_as_polynomials_are_accepted():
    x = tensor((n + 1, m * 2), f32)
    assert Reshape((m, n + 1, 2)).infer(x).ndim == 3
    assert Reshape(((n + 1) * m * 2,)).infer(x).ndim == 1
