"""One process of ``memory.py``: prints a line of JSON with what it measured."""

import argparse
import ctypes
import gc
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def status(field: str) -> int:
    """Bytes that ``/proc/self/status`` says, such as ``VmRSS`` or ``VmHWM``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def settle() -> int:
    """Give free memory back to the system; the resident bytes then."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return status("VmRSS")


def clear_mark() -> None:
    """Let the highest resident memory start from now."""
    Path("/proc/self/clear_refs").write_text("5")


def save(path: str, model: str, tiny: bool) -> dict[str, Any]:
    """Compile a model of the zoo and write it; the bytes of its parameters and buffers."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    entry = importlib.import_module("common.zoo").ZOO[model](tiny=tiny)
    driver = importlib.import_module("treadle.driver")
    exe = driver.compile(entry.model, entry.inputs, dynamic_shapes=entry.dynamic_shapes, threads=1)
    exe.save(path)
    tensors = {t.data_ptr(): t for t in (*entry.model.parameters(), *entry.model.buffers())}
    return {"parameters": sum(t.numel() * t.element_size() for t in tensors.values())}


def run(path: str, threads: int, sizes: list[str]) -> dict[str, Any]:
    """Load a saved language model twice, call the second at several sizes."""
    driver = importlib.import_module("treadle.driver")
    warm_up = driver.load(path, threads=threads)
    _call(warm_up, 1, 8)
    del warm_up
    base = settle()
    clear_mark()
    exe = driver.load(path, threads=threads)
    loading = status("VmHWM")
    loaded = settle()
    calls: list[dict[str, Any]] = []
    for size in sizes:  # in ascending order, since an arena that has grown stays
        batch, length = map(int, size.split("x"))
        clear_mark()
        tensors = _call(exe, batch, length)
        peak = status("VmHWM")
        # The sizes are those of the last call.
        use = exe.memory()
        plan = {"size": size, "arena": use.arena, "live": use.live}
        calls.append({**plan, "tensors": tensors, "peak": peak - loaded})
    if any(name in sys.modules for name in ("torch", "onnx")):
        raise RuntimeError("another framework was imported along")
    return {
        "base": base,
        "loading": loading - base,
        "loaded": loaded - base,
        "weights": exe.memory().weights,
        "calls": calls,
    }


def _call(exe: Any, batch: int, length: int) -> int:  # noqa: ANN401  (an executable)
    """Run on token 1 under a full mask; the bytes of inputs and outputs."""
    inputs = [np.ones((batch, length), np.int64) for _ in exe.entry.inputs]
    total = 0
    for _ in range(3):
        total = sum(x.nbytes for x in (*inputs, exe(*inputs)))
    return total


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("save", "run"))
    parser.add_argument("path")
    parser.add_argument("--model", default="bert_base")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="*", default=[])
    options = parser.parse_args()
    if options.what == "save":
        report = save(options.path, options.model, options.tiny)
    else:
        report = run(options.path, options.threads, options.sizes)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
