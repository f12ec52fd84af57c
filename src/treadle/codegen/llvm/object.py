"""From LLVM text to object code: in this process or in workers, with a cache on disk.

LLVM holds one lock per process and may end its process on code that it cannot select; worker
processes take care of both.
"""

import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import IO

from treadle.base.errors import CodegenError, InternalError
from treadle.codegen.llvm import worker
from treadle.codegen.llvm.worker import Machine
from treadle.target import Target

_TAIL = 2000


def machine_of(target: Target) -> Machine:
    """What LLVM is told of a target."""
    return Machine(target.triple, target.cpu, target.feature_text)


def compile_here(text: str, target: Target) -> bytes:
    """Compile one module in this process.

    Raises:
        InternalError: if the text is not valid LLVM IR; programs write it, not users.
    """
    try:
        return worker.emit_object(text, machine_of(target))
    except RuntimeError as error:
        raise _invalid(str(error)) from error


def assembly(text: str, target: Target) -> str:
    """The machine code of one module as assembly text, to look at.

    Raises:
        InternalError: if the text is not valid LLVM IR.
    """
    try:
        return worker.emit_assembly(text, machine_of(target))
    except RuntimeError as error:
        raise _invalid(str(error)) from error


def _invalid(message: str) -> InternalError:
    return InternalError(f"invalid LLVM IR: {message}")


def compile_objects(texts: Sequence[str], target: Target, workers: int = 0) -> list[bytes]:
    """Compile modules, each to an object.

    ``workers`` processes compile at the same time; with none, this process does it.

    Raises:
        CodegenError: E0510 if LLVM gave up on a module and ended its process.
        InternalError: if a text is not valid LLVM IR.
    """
    if workers <= 0:
        return [compile_here(text, target) for text in texts]
    if not texts:
        return []
    with CompilerWorkers(target, min(workers, len(texts))) as pool:
        results = pool.compile(texts)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return [r for r in results if isinstance(r, bytes)]


# Workers ------------------------------------------------------------------------------------------


class _Worker:
    """One worker process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            # -P keeps the script's folder off the path: its modules are named like the standard
            # library's.
            [sys.executable, "-P", worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def compile(self, text: str) -> bytes | Exception:
        """The object code, or what went wrong; after a ``CodegenError`` the process is gone."""
        data = text.encode()
        try:
            self._stdin.write(self._machine.header(len(data)) + data)
            self._stdin.flush()
        except BrokenPipeError:
            return self._gone()
        word, _, size = self._stdout.readline().partition(b" ")
        if not size:
            return self._gone()
        answer = self._stdout.read(int(size))
        return answer if word == b"ok" else _invalid(answer.decode())

    def _gone(self) -> CodegenError:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")[-_TAIL:].strip()
        return CodegenError(
            "E0510",
            "LLVM cannot make machine code of a kernel for this target",
            notes=(f"the compiler process ended with status {status}", *said.splitlines()[:10]),
            help="choose another target, or report the kernel",
        )

    def close(self) -> None:
        """End the process."""
        self._stdin.close()
        self._process.wait()
        self._stdout.close()
        self._errors.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


class CompilerWorkers:
    """Processes that compile for a target; a context manager, so that a tuner can keep them.

    A process that LLVM ends is replaced; only the module that it was at fails.
    """

    def __init__(self, target: Target, count: int) -> None:
        self._machine = machine_of(target)
        self._workers = [_Worker(self._machine) for _ in range(max(1, count))]

    def __enter__(self) -> "CompilerWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for process in self._workers:
            process.close()
        self._workers.clear()

    def compile(self, texts: Sequence[str]) -> list[bytes | Exception]:
        """The object code of each text, or the error (``CodegenError`` or ``InternalError``) that
        it met.
        """
        results: dict[int, bytes | Exception] = {}
        work: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(texts)):
            work.put(i)

        def drain(slot: int) -> None:
            while not work.empty():
                try:
                    i = work.get_nowait()
                except queue.Empty:
                    return
                results[i] = self._workers[slot].compile(texts[i])
                if isinstance(results[i], CodegenError):
                    self._workers[slot].close()
                    self._workers[slot] = _Worker(self._machine)

        threads = [threading.Thread(target=drain, args=(s,)) for s in range(len(self._workers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[i] for i in range(len(texts))]
