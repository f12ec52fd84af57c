"""Pipelines: lists of passes, and the runner that logs, times, dumps and verifies around each."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from treadle.base.errors import InternalError, OptionError
from treadle.ir.level import Level
from treadle.ir.module import Module
from treadle.passes.recheck import recheck

LOG = logging.getLogger("treadle.passes")


@dataclass(frozen=True, slots=True)
class Pass:
    """A function from module to module under a name; it takes modules down to level ``reads``, and
    leaves ``writes``.
    """

    name: str
    run: Callable[[Module], Module]
    reads: Level
    writes: Level
    options: tuple[str, ...] = ()

    def configure(self, **options: Any) -> "Pass":  # noqa: ANN401  (each pass knows its own)
        """The pass with options set.

        Raises:
            OptionError: E0820 for an option that it does not have.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise OptionError(
                    "E0820", f"{self.name}: unknown option '{name}'; the options are {known}"
                )
        return Pass(self.name, partial(self.run, **options), self.reads, self.writes, self.options)


def module_pass(
    run: Callable[..., Module], *, reads: Level = Level.GRAPH, writes: Level | None = None
) -> Pass:
    """The pass that a function is; its keyword-only parameters are the options."""
    parameters = signature(run).parameters.values()
    options = tuple(p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY)
    return Pass(run.__name__, run, reads, reads if writes is None else writes, options)


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pipeline:
    """Passes in order.

    Raises:
        InternalError: when it is built in an order in which a pass would meet a level that it does
            not read.
    """

    passes: tuple[Pass, ...]

    def __post_init__(self) -> None:
        level = Level.GRAPH
        before = "the front end"
        for step in self.passes:
            if step.reads < level:
                raise InternalError(
                    f"pass '{step.name}' reads level {step.reads.name} "
                    f"but '{before}' before it leaves {level.name}"
                )
            level, before = step.writes, step.name

    def run(
        self,
        module: Module,
        *,
        dump: Path | None = None,
        progress: Progress | None = None,
        verify: bool = False,
    ) -> Module:
        """Run all passes; with ``dump``, write the module after each one that changed it into that
        folder; with ``verify``, check it and deduce all types again.
        """
        for number, step in enumerate(self.passes):
            if progress is not None:
                progress(step.name, number, len(self.passes))
            start = time.perf_counter()
            changed = step.run(module)
            LOG.debug("%s: %.1f ms", step.name, (time.perf_counter() - start) * 1e3)
            if dump is not None and changed is not module:
                dump.mkdir(parents=True, exist_ok=True)
                (dump / f"{number:03d}-{step.name}.py").write_text(str(changed))
            if verify:
                recheck(changed, module, step.name)
            module = changed
        return module
