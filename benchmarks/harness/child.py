"""Processes that serve requests, seen from the one that sends them."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..common.child import environment

ROOT = Path(__file__).resolve().parents[2]


class ChildError(Exception):
    """A child failed: its last words, its signal, or the time it was given."""


class Child:
    """A started process. It stands still whenever it is not answering, threads and all."""

    def __init__(
        self, module: str, arguments: list[str], variables: Mapping[str, str], log: Path
    ) -> None:
        self.log = log
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=environment(**variables),
            )

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def ask(self, do: str, limit: float = 600.0, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """Send a request and wait for its answer.

        Raises:
            ChildError: if the child fails or takes longer than ``limit`` seconds; it has ended.
        """
        if not self.alive:
            raise ChildError(self._death())
        with self._awake():
            answer = self._exchange({"do": do, **arguments}, limit)
        if "error" in answer:
            self.stop()
            raise ChildError(answer["error"])
        return answer

    def _exchange(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            ready, _, _ = select.select([stdout], [], [], limit)
        except BrokenPipeError:
            ready = [stdout]
        if not ready:
            self.stop()
            raise ChildError(f"no answer after {limit:.0f} s")
        line = stdout.readline()
        if not line:
            raise ChildError(self._death())
        return json.loads(line)

    def _death(self) -> str:
        status = self.process.wait()
        if status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    @contextlib.contextmanager
    def _awake(self) -> Iterator[None]:
        self._send(signal.SIGCONT)
        try:
            yield
        finally:
            self._send(signal.SIGSTOP)

    def _send(self, what: signal.Signals) -> None:
        if self.alive:
            os.kill(self.process.pid, what)

    def stop(self) -> None:
        """End the process."""
        if self.alive:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()
