"""The op that the tutorial adds keeps the laws that every op keeps."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from treadle.testing import sample_name, sample_sizes

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_spec = importlib.util.spec_from_file_location(
    "laws_of_ops", ROOT / "tests" / "ops" / "test_every_op.py"
)
laws = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = laws
_spec.loader.exec_module(laws)


def tutorial():
    first, *_ = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text())
    names = {"__name__": "tutorial"}
    exec(compile(first, "CONTRIBUTING.md", "exec"), names)
    sys.modules.setdefault("tutorial", type(sys)("tutorial")).__dict__.update(names)
    return names["SquaredRelu"]


OP = tutorial()
LAWS = [name for name in dir(laws.TestEveryOp) if name.startswith("test_")]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sample", list(OP.samples()), ids=sample_name)
def test_the_op_of_the_tutorial_keeps_the_law(law, sample, monkeypatch):
    monkeypatch.setattr(laws, "OPS_BY_NAME", {**laws.OPS_BY_NAME, "squared_relu": OP})
    getattr(laws.TestEveryOp(), law)(sample)


@pytest.mark.parametrize("sample", list(OP.samples()), ids=sample_name)
def test_the_gradient_of_the_tutorial_agrees_with_differences(sample):
    laws.test_gradient_agrees_with_differences(laws.doubled(sample, sample_sizes(sample)))
