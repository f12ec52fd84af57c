"""The programs in examples/ run to their end, in a process of their own, as a user starts them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = {"minilm_search.py": ["--quick", "how do I add an operation?"]}
SAYS = {
    "minilm_search.py": ["compiled once", "lowest cosine", "Latency"],
    "onnx_model.py": ["8 × 100 × 32 matches NumPy"],
    "own_library.py": ["layer_norm by mine.normalize_rows", "0, 1, 7 and 300 match PyTorch"],
    "quickstart.py": ["batches of 1, 7 and 300 match PyTorch", "and loaded", "help:"],
}


def test_every_example_is_run_here():
    assert sorted(SAYS) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example_runs_and_says_what_it_should(name):
    command = [sys.executable, str(EXAMPLES / name), *QUICK.get(name, [])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())  # however its lines were broken
    for text in SAYS[name]:
        assert text in said
