"""Native code solves the symbols from the shapes of the inputs once per call, tests what the
signature says of them, and computes with them; no type is left at run time (Relax, arXiv
2311.02103, §4.7).
"""

import numpy as np
import pytest

import treadle
from treadle.base.errors import LoweringError, RuntimeFault
from treadle.testing import ir

FORMS = """
@graph.function
def main(x: Tensor[(n * m, 2 * k + 1), f32], y: Tensor[(m, 3), f32], z: Tensor[(n + 5 * k,), f32]
         ) -> (Tensor[(), i64], Tensor[(), i64], Tensor[(), i64]):
    a = add(literal(n), i64(0))
    b = add(literal(m), i64(0))
    c = add(literal(k), i64(0))
    return a, b, c
"""


def ones(*shapes):
    return tuple(np.ones(s, np.float32) for s in shapes)


def test_symbols_follow_from_linear_dimensions_and_from_products(both):
    a, b, c = both(FORMS, *ones((6, 5), (3, 3), (12,)))
    assert (a, b, c) == (2, 3, 2)


REFUSED = {
    "a number": ((6, 5), (3, 4), (12,)),
    "a remainder": ((6, 4), (3, 3), (12,)),
    "a product": ((7, 5), (3, 3), (12,)),
    "another dimension": ((6, 5), (3, 3), (13,)),
    "a factor of zero": ((0, 5), (0, 3), (10,)),
}


@pytest.mark.parametrize("shapes", REFUSED.values(), ids=REFUSED)
def test_shapes_that_do_not_solve_the_equations_are_refused(shapes):
    exe = treadle.compile(ir(FORMS), threads=1)
    with pytest.raises(RuntimeFault):
        exe(*ones(*shapes))


def test_a_symbol_is_never_negative():
    exe = treadle.compile(
        ir("""
@graph.function
def main(x: Tensor[(n + 5,), f32]) -> (Tensor[(n + 5,), f32],):
    y = relu(x)
    return y
"""),
        threads=1,
    )
    assert exe(*ones((5,))).shape == (5,)
    with pytest.raises(RuntimeFault, match="n >= 0"):
        exe(*ones((3,)))


@pytest.mark.parametrize("dim", ["n // 2", "n * m", "n % 4"])
def test_a_symbol_that_no_equation_tells_is_refused_when_compiling(dim):
    with pytest.raises(LoweringError, match="E0420"):
        treadle.compile(
            ir(f"""
@graph.function
def main(x: Tensor[({dim},), f32]) -> (Tensor[({dim},), f32],):
    y = relu(x)
    return y
"""),
            threads=1,
        )


def test_derived_sizes_are_computed_by_the_host(both):
    (y,) = both(
        """
@graph.function
def main(x: Tensor[(n,), f32]) -> (Tensor[((n + 3) // 4 * 2 + max(n, 7),), f32],):
    y = full(shape=((n + 3) // 4 * 2 + max(n, 7),), value=1.0, dtype=f32)
    return y
""",
        *ones((9,)),
    )
    assert y.shape == (15,)
