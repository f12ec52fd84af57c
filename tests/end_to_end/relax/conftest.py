"""How the tests of Relax's contracts run a program: interpreted and compiled, with one answer."""

from collections.abc import Callable

import numpy as np
import pytest

import treadle
from treadle.ir.interpret.graph import run
from treadle.testing import ir


@pytest.fixture
def both() -> Callable[..., tuple[np.ndarray, ...]]:
    """Runs a text on arrays by the interpreter and compiled; the results, which must agree."""

    def run_both(text, *arrays, libraries=None):
        module = ir(text)
        expected = run(module, "main", *arrays, libraries=libraries or {})
        found = treadle.compile(module, threads=1, libraries=libraries)(*arrays)
        results = found if isinstance(found, tuple) else (found,)
        for a, b in zip(results, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            assert a.dtype == b.dtype
        return results

    return run_both
