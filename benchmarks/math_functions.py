"""Vector math functions, nanoseconds per element in cache, beside NumPy and PyTorch on one thread.

Run ``python benchmarks/math_functions.py [--bits 32] [--lanes 16] [name ...]``. The contenders
take turns in one process; the figure is the fastest of the rounds. A call from Python counts in
each, a tenth of a nanosecond for each element; the column ``loop`` is Treadle's without it, from
one call that goes over the array many times.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from functools import partial

import llvmlite.binding as llvm
import numpy as np
import torch

from treadle.codegen.llvm.math import MATH_FUNCTIONS, arity, link_math, math_function

ELEMENTS = 4096
ROUNDS = 40
CALLS = 10
PASSES = 20
NUMPY = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "pow": "power",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
}  # fmt: skip
HOST = llvm.get_host_cpu_features()
FEATURES = frozenset(name for name, present in HOST.items() if present)


def loop_text(name: str, bits: int, lanes: int) -> str:
    """Return a function ``run`` that applies ``name`` in vectors of ``lanes`` to arrays, ``n``
    elements in all: it starts over at the end of the arrays.
    """
    kind = {32: "float", 64: "double"}[bits]
    vector = kind if lanes == 1 else f"<{lanes} x {kind}>"
    letters = "xy"[: arity(name)]
    loads = "".join(
        f"  %{c}.at = getelementptr {kind}, ptr %{c}, i64 %place\n"
        f"  %{c}.value = load {vector}, ptr %{c}.at, align 64\n"
        for c in letters
    )
    arguments = ", ".join(f"{vector} %{c}.value" for c in letters)
    pointers = ", ".join(f"ptr noalias %{c}" for c in "z" + letters)
    return f"""
define void @run({pointers}, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %place = and i64 %i, {ELEMENTS - 1}
{loads}
  %result = call {vector} {math_function(name, bits, lanes).symbol}({arguments})
  %z.at = getelementptr {kind}, ptr %z, i64 %place
  store {vector} %result, ptr %z.at, align 64
  %next = add i64 %i, {lanes}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""


def host_machine() -> llvm.TargetMachine:
    """Return a target machine for this CPU."""
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=HOST.flatten(), opt=2
    )


def treadle_calls(
    name: str, bits: int, lanes: int, arrays: list[np.ndarray]
) -> dict[str, Callable[[], object]]:
    """Compile ``name`` and return calls over ``arrays``, the result first: one pass, and many."""
    machine = host_machine()
    linked = link_math((name, bits, lanes), features=FEATURES)
    module = llvm.parse_assembly(linked + loop_text(name, bits, lanes))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    builder = (
        llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module)).export_symbol("run")
    )
    library = builder.link(llvm.create_lljit_compiler(host_machine()), name)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), ctypes.c_int64)
    native = prototype(library["run"])
    pointers = [a.ctypes.data for a in arrays]

    def call(passes: int) -> object:
        native(*pointers, passes * ELEMENTS)
        return library  # the code lives as long as the library

    return {"treadle": partial(call, 1), "loop": partial(call, PASSES)}


def peers(name: str, arrays: list[np.ndarray]) -> dict[str, Callable[[], object]]:
    """Return the same call in NumPy and in PyTorch, where they have the function."""
    result, *inputs = arrays
    tensors = [torch.from_numpy(a) for a in inputs]
    out = torch.from_numpy(result)
    calls: dict[str, Callable[[], object]] = {}
    universal = getattr(np, NUMPY.get(name, name), None)
    if universal is not None:
        calls["numpy"] = lambda: universal(*inputs, out=result)
    if name == "gelu_erf":
        calls["torch"] = lambda: torch.nn.functional.gelu(tensors[0])
    elif hasattr(torch, name):
        function = getattr(torch, name)
        calls["torch"] = lambda: function(*tensors, out=out)
    return calls


def aligned(values: np.ndarray) -> np.ndarray:
    """Return a copy of ``values`` that begins at a cache line."""
    raw = np.empty(values.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + values.nbytes].view(values.dtype)
    copy[:] = values
    return copy


def measure(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return nanoseconds per element of each call, the calls taking turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for label, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            best[label] = min(best[label], (time.perf_counter() - start) / CALLS / ELEMENTS * 1e9)
    return best | {"loop": best["loop"] / PASSES}


def main() -> None:
    """Print one line for each function."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--bits", type=int, default=32, choices=(32, 64))
    parser.add_argument("--lanes", type=int, default=16)
    options = parser.parse_args()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    dtype = {32: np.float32, 64: np.float64}[options.bits]
    labels = ("loop", "treadle", "numpy", "torch")
    print(f"{'ns/element':>10} " + " ".join(f"{label:>8}" for label in labels))
    for name in options.names or MATH_FUNCTIONS:
        low, high = (1.01, 3.0) if name == "acosh" else (0.01, 0.99)
        arrays = [
            aligned(random.uniform(low, high, ELEMENTS).astype(dtype))
            for _ in range(1 + arity(name))
        ]
        own = treadle_calls(name, options.bits, options.lanes, arrays)
        best = measure(own | peers(name, arrays))
        print(
            f"{name:>10} "
            + " ".join(f"{best[c]:8.3f}" if c in best else f"{'-':>8}" for c in labels)
        )


if __name__ == "__main__":
    main()
