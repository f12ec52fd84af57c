"""Weights that stay in their artifact are those that were written, as long as the file is."""

import ml_dtypes
import numpy as np
import pytest

from treadle_runtime import artifact
from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import Manifest
from treadle_runtime.stored import StoredWeights

WEIGHTS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "flag": np.array(True),
    "none": np.zeros((0, 4), np.int64),
    "short": np.arange(5).astype(ml_dtypes.bfloat16),
    "transposed": np.arange(12, dtype=np.int8).reshape(3, 4).T,
}


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "model.treadle"
    artifact.write(found, "text", WEIGHTS, Manifest(()))
    return found


def test_each_weight_is_what_a_whole_reading_gives(path):
    whole = artifact.read(path).weights
    stored = StoredWeights(path)
    assert set(stored) == set(whole) == set(WEIGHTS)
    assert len(stored) == len(WEIGHTS)
    for name, expected in whole.items():
        assert stored[name].dtype == expected.dtype
        np.testing.assert_array_equal(stored[name], expected)
        assert not stored[name].flags.writeable


def test_a_file_that_changed_is_refused(path):
    stored = StoredWeights(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RuntimeFault) as caught:
        stored["a"]
    assert caught.value.code == "E0714"


def test_a_file_that_is_gone_is_an_error_of_ours(path):
    stored = StoredWeights(path)
    path.unlink()
    with pytest.raises(RuntimeFault) as caught:
        stored["a"]
    assert caught.value.code == "E0711"
