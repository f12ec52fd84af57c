"""``treadle bench``: a model beside PyTorch eager or ONNX Runtime, interleaved in one run."""

import statistics
import time
from typing import Annotated

import typer
from rich.table import Table

from treadle.base.errors import OptionError
from treadle.cli.inputs import Given, make_inputs, parse_dims, parse_shapes
from treadle.cli.libraries import libraries_called
from treadle.cli.models import load_model, slowly
from treadle.cli.parameters import Dims, LibraryNames, Model, Seed, Target, Threads
from treadle.cli.peers import NAMES, Call, choose_peer, peer_call
from treadle.cli.progress import progress
from treadle.cli.report import out
from treadle.driver.compile import compile as compile_model
from treadle_runtime.threads import available_threads

_WARM_UP = 3


def bench(
    model: Model,
    dims: Dims = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=2x128", help="The shape of an input."),
    ] = None,
    seed: Seed = 0,
    threads: Threads = None,
    runs: Annotated[int, typer.Option("--runs", help="Timed calls of each.")] = 30,
    against: Annotated[
        str | None, typer.Option("--against", help="torch (.pt2) or onnxruntime (.onnx).")
    ] = None,
    target: Target = "native",
    libraries: LibraryNames = None,
) -> None:
    """Time MODEL beside the peer that reads the same file, calls taking turns."""
    if runs < 1:
        raise OptionError("E0803", f"cannot time {runs} runs", help="pass --runs 1 or more")
    peer = choose_peer(model, against)
    given = Given(shapes=parse_shapes(shapes), dims=parse_dims(dims))
    program = load_model(model)
    chosen = libraries_called(libraries)
    with progress(f"compiling {model.name}") as report:
        exe = compile_model(
            program, target=target, threads=threads, libraries=chosen, progress=report
        )
    inputs = make_inputs(exe.entry, given, seed)
    arrays = tuple(inputs.values())
    calls: dict[str, Call] = {"Treadle": lambda: exe(*arrays)}
    if peer is not None:
        count = available_threads() if threads is None else threads
        calls[NAMES[peer]] = peer_call(peer, model, program, inputs, count)
    times = slowly("timing", lambda: interleaved(calls, runs))
    out().print(_table(times))


def interleaved(calls: dict[str, Call], runs: int) -> dict[str, list[float]]:
    """Seconds of each call, ``runs`` times in turn, after a few that are not counted."""
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def _table(times: dict[str, list[float]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("median ms", "min ms", "runs", "Treadle is faster by"):
        table.add_column(heading, justify="right")
    own = statistics.median(times["Treadle"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        ratio = "" if name == "Treadle" else f"{middle / own:.2f}×"
        table.add_row(
            name, f"{middle * 1e3:.3f}", f"{min(seconds) * 1e3:.3f}", str(len(seconds)), ratio
        )
    return table
