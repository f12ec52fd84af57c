"""One process of ``startup.py``: prints a line of JSON with what it measured."""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOREIGN = ("torch", "onnx", "onnxruntime", "transformers", "timm")


def timed_import(name: str) -> float:
    """Seconds of one import."""
    start = time.perf_counter()
    importlib.import_module(name)
    return time.perf_counter() - start


def import_report() -> dict[str, Any]:
    """Importing treadle, then the whole compiler; which other frameworks came along."""
    seconds = timed_import("treadle")
    compiler = seconds + timed_import("treadle.driver")
    return {
        "import": seconds,
        "compiler": compiler,
        "foreign": [name for name in _FOREIGN if name in sys.modules],
    }


class Stages:
    """Listens to a compilation's progress and times its stages."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, float]] = [("front end", time.perf_counter())]

    def __call__(self, stage: str, _number: int, _count: int) -> None:
        """A stage begins."""
        self.marks.append((stage, time.perf_counter()))

    def report(self, end: float) -> list[tuple[str, float]]:
        """Each stage with its seconds."""
        ends = [start for _, start in self.marks[1:]] + [end]
        return [(n, stop - start) for (n, start), stop in zip(self.marks, ends, strict=True)]


class Meter:
    """Adds up the seconds that functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, metered."""

        def metered(*args: object, **named: object) -> object:
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds += time.perf_counter() - start

        return metered


def compile_report(name: str, tiny: bool, save: str | None, profile: bool) -> dict[str, Any]:
    """Importing PyTorch, exporting, compiling; ``save`` names a file for the executable."""
    torch_seconds = timed_import("torch")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    zoo = importlib.import_module("common.zoo")
    torch = sys.modules["torch"]
    driver = importlib.import_module("treadle.driver")
    importlib.import_module("treadle.frontend.torch")
    entry = zoo.ZOO[name](tiny=tiny)
    start = time.perf_counter()
    with torch.no_grad():
        shapes = entry.dynamic_shapes
        program = torch.export.export(entry.model, entry.inputs, dynamic_shapes=shapes)
    export_seconds = time.perf_counter() - start
    text = profile_of(lambda: driver.compile(program)) if profile else ""
    theirs = Meter()
    torch.export.default_decompositions = theirs.around(torch.export.default_decompositions)
    program.run_decompositions = theirs.around(program.run_decompositions)
    stages = Stages()
    start = time.perf_counter()
    exe = driver.compile(program, progress=stages)
    end = time.perf_counter()
    if save is not None:
        exe.save(save)
    return {
        "torch": torch_seconds,
        "export": export_seconds,
        "compile": end - start,
        "decompositions": theirs.seconds,
        "stages": stages.report(end),
        "profile": text,
    }


def profile_of(action: Callable[[], object]) -> str:
    """The functions that take the most time, by themselves and with what they call."""
    cprofile, pstats, io = (importlib.import_module(m) for m in ("cProfile", "pstats", "io"))
    profile = cprofile.Profile()
    profile.runcall(action)
    stream = io.StringIO()
    stats = pstats.Stats(profile, stream=stream).strip_dirs()
    stats.sort_stats("cumulative").print_stats(45)
    stats.sort_stats("tottime").print_stats(25)
    return stream.getvalue()


def load_report(path: str) -> dict[str, Any]:
    """Loading a saved file where PyTorch is not, and calling it once on zeros."""
    numpy = importlib.import_module("numpy")
    driver = importlib.import_module("treadle.driver")
    start = time.perf_counter()
    exe = driver.load(path)
    middle = time.perf_counter()
    shapes = [[d if isinstance(d, int) else 2 for d in x.dims] for x in exe.entry.inputs]
    kinds = [{"f32": "float32", "i64": "int64"}[x.dtype] for x in exe.entry.inputs]
    exe(*(numpy.zeros(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)))
    return {"load": middle - start, "call": time.perf_counter() - middle}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("import", "compile", "load"))
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--save")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.what == "import":
        report = import_report()
    elif options.what == "compile":
        report = compile_report(options.name, options.tiny, options.save, options.profile)
    else:
        report = load_report(options.name)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
