import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).resolve().parents[2] / "tools" / "generate_docs.py"
_spec = importlib.util.spec_from_file_location("generate_docs", _PATH)
generate_docs = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = generate_docs
_spec.loader.exec_module(generate_docs)


def test_generated_pages_are_up_to_date():
    assert generate_docs.stale() == [], "run: python tools/generate_docs.py"


def test_every_operation_has_an_entry_that_leads_to_it():
    pages = generate_docs.pages()
    index = pages["reference/operations.md"]
    for cls in generate_docs.OPS:
        if cls.__module__.startswith("treadle.ops."):
            assert f"[`{cls.op_name()}`](" in index
            assert any(f"## `{cls.op_name()}`" in text for text in pages.values())
