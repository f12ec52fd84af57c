import time

import pytest
from rich.console import Console

from treadle.cli import progress as room


@pytest.fixture
def terminal(monkeypatch):
    console = Console(force_terminal=True, width=100, record=True)
    monkeypatch.setattr(room, "err", lambda: console)
    monkeypatch.setattr(room, "PATIENCE", 0.05)
    return console


def test_a_bar_appears_on_long_work_and_names_the_stage(terminal):
    with room.progress("compiling net.onnx") as report:
        report("fuse", 1, 4)
        time.sleep(0.4)
    assert "compiling net.onnx: fuse" in terminal.export_text()


def test_short_work_shows_nothing(terminal):
    with room.progress("compiling net.onnx") as report:
        report("fuse", 1, 4)
    time.sleep(0.1)
    assert terminal.export_text() == ""


def test_nothing_is_shown_where_there_is_no_terminal(terminal, monkeypatch):
    plain = Console(force_terminal=False, record=True)
    monkeypatch.setattr(room, "err", lambda: plain)
    with room.progress("compiling net.onnx") as report:
        report("fuse", 1, 4)
        time.sleep(0.2)
    assert plain.export_text() == ""
