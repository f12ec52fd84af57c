"""A progress bar that appears when work takes longer than two seconds on a terminal."""

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock, Timer

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from treadle.cli.report import err
from treadle.passes.pipeline import Progress as Callback

PATIENCE = 2.0


class _Bar:
    """A bar that is shown late, and never after the end."""

    def __init__(self, title: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=err(),
            transient=True,
        )
        self._title = title
        self._task = self._progress.add_task(title, total=None)
        self._lock = Lock()
        self._ended = False
        self._shown = False
        self._timer = Timer(PATIENCE, self._show)
        self._timer.daemon = True

    def __enter__(self) -> "_Bar":
        if self._progress.console.is_terminal:
            self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._shown:
                self._progress.stop()

    def _show(self) -> None:
        with self._lock:
            if not self._ended:
                self._shown = True
                self._progress.start()

    def update(self, stage: str, number: int, total: int) -> None:
        """Say which stage begins, of how many."""
        description = f"{self._title}: {stage}"
        # The last stage, machine code, says nothing of how far it has come.
        whole = total if number < total else None
        self._progress.update(self._task, description=description, completed=number, total=whole)


@contextmanager
def progress(title: str) -> Generator[Callback]:
    """The callback to pass to ``treadle.compile``; the bar is gone when the block ends."""
    with _Bar(title) as bar:
        yield bar.update
