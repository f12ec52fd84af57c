"""Every error code has a page, and every page tells the truth."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

_spec = importlib.util.spec_from_file_location("error_pages", ROOT / "tools" / "error_pages.py")
error_pages = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = error_pages
_spec.loader.exec_module(error_pages)

PAGES = {path.stem: path for path in sorted(error_pages.FOLDER.glob("E*.md"))}
# What no program on a sound machine can show: LLVM aborting, a package missing, and a system that
# refuses threads.
WITHOUT_PROGRAM = {"E0510", "E0709", "E0750", "E0853", "E0862", "E0917"}


def codes_in_source():
    codes = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                codes.update(re.findall(r"^E\d{4}$", node.value))
    return codes


def test_every_code_has_a_page_and_every_page_a_code():
    assert set(PAGES) == codes_in_source()


@pytest.mark.parametrize("code", PAGES)
def test_a_page_begins_with_its_code_and_says_what_it_means(code):
    title, text, *_ = PAGES[code].read_text().split("\n\n")
    assert re.fullmatch(rf"# {code}: .+", title)
    assert len(text) > 40


@pytest.mark.parametrize("code", PAGES)
def test_a_page_shows_a_program_unless_none_can(code):
    assert (error_pages.read_page(PAGES[code]) is None) == (code in WITHOUT_PROGRAM)


@pytest.mark.parametrize("code", sorted(set(PAGES) - WITHOUT_PROGRAM))
def test_the_wrong_program_gives_the_message_and_the_cure_runs(code, tmp_path):
    page = error_pages.read_page(PAGES[code])
    assert error_pages.run_page(page, tmp_path) == page.message
