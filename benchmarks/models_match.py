"""Full-size models, from torch.export and from ONNX, beside PyTorch eager at several sizes.

Weights are random, of a fixed seed. Each executable is compiled once, with dynamic batch, and with
dynamic sequence for the language models. ``common/match.py`` states the tolerance. The exit status
is 1 if a result is outside of it, or a model does not compile.

    python benchmarks/models_match.py                       # all
    python benchmarks/models_match.py bert_base --tiny      # some, small variants
"""

import argparse
import gc
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from common.match import Difference, Inputs, differences, export_onnx, sized_inputs
from common.zoo import ZOO, Entry
from rich.console import Console
from rich.table import Table

import treadle

FRONT_ENDS = ("torch.export", "ONNX")
LANGUAGE = ({"batch": 1, "seq": 2}, {"batch": 3, "seq": 17}, {"batch": 2, "seq": 128})
IMAGE = ({"batch": 1}, {"batch": 2}, {"batch": 5})
NOTE = (
    "worst error: relative to the largest magnitude, over all inputs; "
    "*: compared in float64, from which eager is farther than the tolerance"
)


@dataclass(frozen=True)
class Outcome:
    """What came of one model through one front end."""

    name: str
    front_end: str
    export: float
    compile: float
    found: tuple[Difference, ...]
    failure: str = ""

    @property
    def passed(self) -> bool:
        """Whether it compiled, and every result was close."""
        return not self.failure and all(d.close for d in self.found)


def inputs_of(entry: Entry, tiny: bool) -> Iterator[Inputs]:
    """Inputs of several sizes, the example's among them."""
    yield entry.inputs
    spec = [str(dim.__name__) for dims in entry.dynamic_shapes if dims for dim in dims.values()]
    for sizes in LANGUAGE if "seq" in spec else IMAGE:
        length = min(sizes.get("seq", 1), 40 if tiny else 512)
        yield sized_inputs(entry, {**sizes, "seq": length, "target": length // 2 + 2})


def outcome(name: str, front_end: str, tiny: bool) -> Outcome:
    """Export, compile and compare one model."""
    entry = ZOO[name](tiny=tiny)
    start = time.perf_counter()
    middle = start
    with tempfile.TemporaryDirectory() as folder:
        try:
            exe, middle = compiled(entry, front_end, Path(folder))
            spent = time.perf_counter() - middle
            found = tuple(differences(exe, entry.model, inputs_of(entry, tiny)))
        except treadle.TreadleError as error:
            return Outcome(name, front_end, middle - start, 0.0, (), str(error))
    return Outcome(name, front_end, middle - start, spent, found)


def compiled(entry: Entry, front_end: str, folder: Path) -> tuple[treadle.Executable, float]:
    """The executable, and when the export was done."""
    if front_end == "ONNX":
        path = export_onnx(entry, folder / "model.onnx")
        middle = time.perf_counter()
        return treadle.compile(path), middle
    with torch.no_grad():
        shapes = entry.dynamic_shapes
        program = torch.export.export(entry.model, entry.inputs, dynamic_shapes=shapes)
    middle = time.perf_counter()
    return treadle.compile(program), middle


def report(outcomes: list[Outcome]) -> Table:
    """One row for each model and front end."""
    table = Table("model", "from", "export", "compile", "worst error", "", caption=NOTE)
    for o in outcomes:
        worst = max((d.error for d in o.found), default=float("nan"))
        by_double = any(d.reference == "float64" for d in o.found)
        match = "match *" if by_double else "match"
        verdict = match if o.passed else o.failure or "[red]differs[/red]"
        times = f"{o.export:.1f} s", f"{o.compile:.1f} s"
        table.add_row(o.name, o.front_end, *times, f"{worst:.1e}", verdict)
    for column in table.columns[:-1]:
        column.no_wrap = True
    return table


def main() -> int:
    """Run the comparison; the exit status."""
    parser = argparse.ArgumentParser(description="Compare models with PyTorch eager.")
    parser.add_argument("models", nargs="*", choices=[*ZOO, []], help="default: all")
    parser.add_argument("--tiny", action="store_true", help="shallow and narrow variants")
    parser.add_argument("--front-end", choices=FRONT_ENDS, help="default: both")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the exporters warn about themselves
    console = Console(width=110)
    outcomes: list[Outcome] = []
    for name in options.models or ZOO:
        for front_end in [options.front_end] if options.front_end else FRONT_ENDS:
            with console.status(f"{name} from {front_end}"):
                outcomes.append(outcome(name, front_end, options.tiny))
            last = outcomes[-1]
            inputs = ", ".join(d.shapes for d in last.found)
            verdict = f"matches on {inputs}" if last.passed else "does not match"
            console.print(f"{name} from {front_end} {verdict}", highlight=False)
            gc.collect()
    console.print(report(outcomes))
    failed = sum(not o.passed for o in outcomes)
    console.print(f"{len(outcomes) - failed} of {len(outcomes)} match")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
