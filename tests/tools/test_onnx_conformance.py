import importlib.util
import sys
import unittest
from pathlib import Path
from types import ModuleType

import pytest

from treadle.base.errors import ModelImportError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "onnx_conformance.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("onnx_conformance", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def some(name: str) -> unittest.TestCase:
    """One of the cases, which pytest must not find by itself."""

    class Some(unittest.TestCase):
        def test_good(self):
            pass

        def test_wrong(self):
            raise AssertionError("1 is not 2")

        def test_refused(self):
            raise ModelImportError(
                "E0601", "unknown", notes=["ai.onnx.Mystery"], help="leave it out"
            )

        def test_skipped(self):
            raise unittest.SkipTest("not here")

        def test_broken(self):
            raise IndexError("out of range")

    return Some(name)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("test_good", ""),
        ("test_wrong", "wrong result"),
        ("test_refused", "E0601"),
        ("test_skipped", "skipped"),
        ("test_broken", "IndexError"),
    ],
)
def test_only_a_test_that_ends_well_counts_as_passed(tool: ModuleType, name: str, code: str):
    assert tool.run_case(name, some(name)).code == code


def test_the_page_tells_totals_and_every_failure(tool: ModuleType):
    outcomes = [
        tool.Outcome("OnnxBackendNodeModelTest.test_relu_cpu", "", ""),
        tool.Outcome("OnnxBackendNodeModelTest.test_nonzero_example_cpu", "E0602", "the shape"),
        tool.Outcome("OnnxBackendRealModelTest.test_vgg19_cpu", "crash", "it ended"),
    ]
    text = tool.page(outcomes, interpret=False)
    assert "All tests: **1 of 3** pass (33.3%)." in text
    assert "Node tests: **1 of 2** pass (50.0%)." in text
    assert "| Relu | 1 / 1 |  |" in text
    assert "| NonZero | 0 / 1 | E0602 |" in text
    assert "- `test_vgg19`: crash: it ended" in text


def test_every_node_test_of_onnx_is_among_the_cases(tool: ModuleType):
    names = {name.partition(".")[2].removesuffix("_cpu") for name in tool.cases(interpret=True)}
    assert set(tool.operators()) <= names
