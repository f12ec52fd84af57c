import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

_PATH = Path(__file__).resolve().parents[2] / "docs" / "from_scratch.py"
_spec = importlib.util.spec_from_file_location("from_scratch", _PATH)
from_scratch = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = from_scratch
_spec.loader.exec_module(from_scratch)


def test_the_schedule_keeps_the_numbers_and_is_much_faster(capsys):
    assert from_scratch.main(128) > 3
    assert "C_tile" in capsys.readouterr().out


@pytest.mark.parametrize(("rows", "vectors", "lanes"), [(2, 1, 4), (4, 2, 8), (8, 1, 16)])
def test_every_tile_means_the_same(rows, vectors, lanes):
    plain = from_scratch.matmul(16)
    tiled = from_scratch.schedule(plain, rows, vectors, lanes)
    a, b = np.random.default_rng(1).standard_normal((2, 16, 16)).astype(np.float32)
    results = []
    for function in (plain, tiled):
        c = np.ones((16, 16), np.float32)
        from_scratch.interpret(function, {"A": a, "B": b, "C": c})
        results.append(c)
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)


def test_a_split_that_leaves_a_rest_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        from_scratch.split(from_scratch.matmul(16), "i", 5)


def test_it_stays_a_file_that_one_can_read():
    assert len(_PATH.read_text().splitlines()) <= 600
