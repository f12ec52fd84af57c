"""Run ONNX's own backend tests, all of them, and write what passes to
``docs/reference/onnx_conformance.md``.

    python tools/onnx_conformance.py [--interpret] [--workers 2] [--filter REGEX] [--no-page]

The tests run in worker processes: one that crashes or hangs costs the test that it runs, which
counts as failed, and another goes on with the rest. Nothing is excluded and no failure is expected:
the page tells every one of them.
"""

import argparse
import json
import queue
import re
import subprocess
import sys
import threading
import unittest
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx.backend.test import BackendTest
from onnx.backend.test.loader import load_model_tests

from treadle import onnx_backend, testing
from treadle.frontend.onnx import Imported

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "onnx_conformance.md"
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
REMARKS = (
    "Codes have a [page](../errors/index.md) each. A wrong result is one of these: `Bernoulli` and "
    "`Dropout` draw random",
    "numbers, and their tests expect those of one generator; others expect the rounding of a "
    "computation in float16",
    "throughout, or the residue that one algorithm leaves where the exact result is zero. ONNX's "
    "runner cannot compare",
    "sequences that hold scalars (TypeError).",
)
# Seconds that one test may take.
PATIENCE = 180


@dataclass(frozen=True)
class Outcome:
    """What became of one test: ``code`` is empty if it passed."""

    name: str
    code: str
    message: str


class CompiledBackend(onnx_backend.TreadleBackend):
    """The backend, which lets every model come: what it cannot import is a failure, not a test
    skipped."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:  # noqa: ANN401
        """Any model."""
        return True

    @classmethod
    def prepare(
        cls,
        model: onnx.ModelProto,
        device: str = "CPU",
        **kwargs: Any,  # noqa: ANN401
    ) -> onnx_backend.TreadleRep:
        """Compile a model in this process: to start others takes longer than most tests."""
        return super().prepare(model, device, engine=compiled_here, **kwargs)


class InterpretedBackend(CompiledBackend):
    """The same importer over the interpreter."""

    @classmethod
    def prepare(
        cls,
        model: onnx.ModelProto,
        device: str = "CPU",
        **kwargs: Any,  # noqa: ANN401
    ) -> onnx_backend.TreadleRep:
        """Import a model for the interpreter."""
        return onnx_backend.TreadleBackend.prepare(
            model, device, engine=onnx_backend.interpreted, **kwargs
        )


def compiled_here(imported: Imported) -> onnx_backend.Runner:
    """Machine code, with nothing read from or left on disk."""
    return onnx_backend.runner(testing.compiled_here(imported.module))


class _Result(unittest.TestResult):
    """Keeps the exception of a test instead of its text."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.skipped_reason: str | None = None

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: ANN401
        self.error = err[1]

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: ANN401
        self.error = err[1]

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.skipped_reason = reason


def cases(interpret: bool) -> dict[str, unittest.TestCase]:
    """Every test for the CPU by name, in ONNX's order."""
    backend = InterpretedBackend if interpret else CompiledBackend
    with warnings.catch_warnings():
        # The test data are computed when they are loaded, with overflows that are meant.
        warnings.simplefilter("ignore")
        classes = BackendTest(backend, __name__).test_cases
    found: dict[str, unittest.TestCase] = {}
    for cls in classes.values():
        for name in unittest.defaultTestLoader.getTestCaseNames(cls):
            if name.endswith("_cpu"):
                found[f"{cls.__name__}.{name}"] = cls(name)
    return found


def run_case(name: str, case: unittest.TestCase) -> Outcome:
    """Run one test; a skipped one counts as failed."""
    result = _Result()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.run(result)
    if result.skipped_reason is not None:
        return Outcome(name, "skipped", result.skipped_reason)
    if result.error is None:
        return Outcome(name, "", "")
    error = result.error
    wrong = "wrong result" if isinstance(error, AssertionError) else type(error).__name__
    notes = "; ".join(getattr(error, "notes", ()))
    message = f"{getattr(error, 'message', error)} {notes}".strip()
    return Outcome(name, str(getattr(error, "code", wrong)), message)


def work(interpret: bool) -> None:
    """The worker: run the tests whose names come line by line, and answer each with a line of
    JSON."""
    known = cases(interpret)
    print(json.dumps(sorted(known)), flush=True)
    for line in sys.stdin:
        outcome = run_case(line.strip(), known[line.strip()])
        print(json.dumps([outcome.code, outcome.message]), flush=True)


class Worker:
    """A process that runs tests, restarted when it dies."""

    def __init__(self, interpret: bool) -> None:
        self._arguments = [
            sys.executable,
            __file__,
            "--worker",
            *(["--interpret"] if interpret else []),
        ]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._send, self._receive = self._process.stdin, self._process.stdout
        self.names: list[str] = json.loads(self._receive.readline())

    def run(self, name: str) -> Outcome:
        """One test, in the process as it is; one that kills it or hangs is a failure."""
        timer = threading.Timer(PATIENCE, self._process.kill)
        timer.start()
        try:
            self._send.write(name + "\n")
            self._send.flush()
            answer = self._receive.readline()
        except BrokenPipeError:
            answer = ""
        hung = not timer.is_alive()
        timer.cancel()
        if answer:
            code, message = json.loads(answer)
            return Outcome(name, code, message)
        status = self._process.wait()
        self._start()
        return Outcome(name, "hang" if hung else "crash", f"the process ended with status {status}")

    def close(self) -> None:
        """End the process."""
        self._send.close()
        self._process.wait()


def run_all(interpret: bool, workers: int, pattern: str) -> list[Outcome]:
    """Run all tests whose names match in several processes."""
    first = Worker(interpret)
    names = [n for n in first.names if re.search(pattern, n)]
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    outcomes: dict[str, Outcome] = {}

    def drain(worker: Worker) -> None:
        while True:
            try:
                name = waiting.get_nowait()
            except queue.Empty:
                worker.close()
                return
            outcomes[name] = worker.run(name)
            if len(outcomes) % 100 == 0:
                print(f"{len(outcomes)} of {len(names)}", file=sys.stderr, flush=True)

    pool = [first, *(Worker(interpret) for _ in range(workers - 1))]
    threads = [threading.Thread(target=drain, args=(w,)) for w in pool]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[n] for n in names]


def operators() -> dict[str, str]:
    """The operator that each test is about, by the test's name in ONNX."""
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for case in load_model_tests(kind=kind):
                nodes = [] if case.model is None else list(case.model.graph.node)
                if kind != "node":
                    found[case.name] = f"({kind} models)"
                elif len(nodes) == 1:
                    found[case.name] = nodes[0].op_type
                else:
                    found[case.name] = (
                        "(function bodies)" if "expanded" in case.name else "(several operators)"
                    )
    return found


def page(outcomes: Sequence[Outcome], interpret: bool) -> str:
    """The page: totals, a table by operator, and every failure."""
    return "\n".join(_lines(outcomes, interpret)) + "\n"


def _lines(outcomes: Sequence[Outcome], interpret: bool) -> Iterator[str]:
    groups = _grouped(outcomes)
    engine = "the interpreter" if interpret else "compiled code"
    yield "# ONNX conformance"
    yield ""
    yield "<!-- Written by tools/onnx_conformance.py. -->"
    yield ""
    version = f"{onnx.__version__} (opset {onnx.defs.onnx_opset_version()})"
    yield f"The backend tests of ONNX {version}, all of them, on {engine}."
    yield ""
    yield f"- All tests: {_share(outcomes)}."
    yield f"- Node tests: {_share([o for o in outcomes if o.name.startswith('OnnxBackendNode')])}."
    codes = Counter(o.code for o in outcomes if o.code).most_common()
    yield f"- Failures by code: {', '.join(f'{code}: {n}' for code, n in codes) or 'none'}."
    yield ""
    yield "| Operator | Passed | Failures |"
    yield "| --- | --- | --- |"
    for operator, found in sorted(groups.items()):
        good = sum(not o.code for o in found)
        reasons = Counter(o.code for o in found if o.code)
        listed = ", ".join(f"{code} × {n}" if n > 1 else code for code, n in reasons.most_common())
        yield f"| {operator} | {good} / {len(found)} | {listed} |"
    yield ""
    yield "## Failures"
    yield ""
    yield from REMARKS
    yield ""
    for o in outcomes:
        if o.code:
            yield f"- `{_plain(o)}`: {o.code}: {_short(o.message)}"


def _share(outcomes: Sequence[Outcome]) -> str:
    passed = sum(not o.code for o in outcomes)
    return f"**{passed} of {len(outcomes)}** pass ({passed / max(len(outcomes), 1):.1%})"


def _plain(outcome: Outcome) -> str:
    """The name that ONNX gives a test."""
    return outcome.name.partition(".")[2].removesuffix("_cpu")


def _grouped(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    table = operators()
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for o in outcomes:
        groups[table.get(_plain(o), "(others)")].append(o)
    return groups


def _short(message: str) -> str:
    flat = " ".join(message.split()).replace("|", "\\|").replace("<", "&lt;")
    return flat if len(flat) <= 160 else flat[:157] + "..."


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--interpret", action="store_true", help="run programs in the interpreter")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--filter", default="", help="only tests whose names match")
    parser.add_argument("--no-page", action="store_true", help="do not write the page")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.interpret)
        return
    outcomes = run_all(options.interpret, options.workers, options.filter)
    text = page(outcomes, options.interpret)
    print("\n".join(text.splitlines()[6:10]))
    for o in outcomes:
        if o.code:
            print(f"{o.name}: {o.code}: {_short(o.message)}")
    if not options.no_page and not options.filter:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
