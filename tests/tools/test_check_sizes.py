import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def check_sizes() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "check_sizes", REPOSITORY / "tools" / "check_sizes.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_lines(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x = 1\n" * count, encoding="utf-8")


@pytest.mark.parametrize(
    ("lines", "kind", "status"),
    [(600, None, 0), (601, "warning", 0), (1000, "warning", 0), (1001, "error", 1)],
)
def test_a_file_is_named_above_600_lines_and_refused_above_1000(
    check_sizes, tmp_path, capsys, lines, kind, status
):
    write_lines(tmp_path / "src" / "room" / "long.py", lines)
    assert check_sizes.main([str(tmp_path)]) == status
    printed = capsys.readouterr().out
    if kind is None:
        assert printed == ""
    else:
        assert printed.startswith(f"{kind}: src/room/long.py: {lines} lines")


def test_files_outside_the_source_folders_are_not_counted(check_sizes, tmp_path, capsys):
    write_lines(tmp_path / "docs" / "long.py", 2000)
    write_lines(tmp_path / "src" / "long.txt", 2000)
    assert check_sizes.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


def test_the_longest_file_is_named_first(check_sizes, tmp_path):
    write_lines(tmp_path / "tools" / "shorter.py", 700)
    write_lines(tmp_path / "tests" / "longer.py", 800)
    messages, passed = check_sizes.report(tmp_path)
    assert [message.split()[1] for message in messages] == ["tests/longer.py:", "tools/shorter.py:"]
    assert passed
