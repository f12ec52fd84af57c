"""Models beside PyTorch eager and ONNX Runtime: one thread, one core, in turns.

The peaks of the machine are measured in the same run. With ``--check`` the exit status is 1 if a
ratio is above its limit.

    python benchmarks/speed.py                      # MiniLM, BERT-base, ResNet-18
    python benchmarks/speed.py vit_b16 gpt2_small   # others
    python benchmarks/speed.py minilm --profile     # with a table of the kernels
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from common.match import Inputs, difference, export_onnx, sized_inputs
from common.peaks import copy_bandwidth, fma_peak
from common.timing import Timing, interleaved, pin_to_one_core
from common.zoo import ZOO, Entry
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import treadle
from treadle.target import Target

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

LIMITS = {"minilm": 1.0, "bert_base": 1.0, "resnet18": 1.5}
LENGTH = 128


@dataclass(frozen=True)
class Row:
    """One model at one size: how long each takes, and what it computes."""

    name: str
    shapes: str
    gflop: float
    times: dict[str, Timing]
    error: float

    @property
    def ratio(self) -> float:
        """Treadle's median time over PyTorch's."""
        return self.times["Treadle"].median / self.times["PyTorch"].median


def gflop(entry: Entry, inputs: Inputs) -> float:
    """Floating-point operations of the model's products and convolutions, in thousand millions."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        entry.model(*inputs)
    return counter.get_total_flops() / 1e9


def runtime_call(entry: Entry, inputs: Inputs) -> Callable[[], object]:
    """A call of ONNX Runtime on the exported model, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(entry, Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    feeds = dict(zip(names, (x.numpy() for x in inputs), strict=True))
    return lambda: session.run(None, feeds)


@dataclass(frozen=True)
class Prepared:
    """A compiled model, and what competes with it."""

    name: str
    entry: Entry
    inputs: Inputs
    exe: treadle.Executable
    actions: dict[str, Callable[[], object]]


def prepare(name: str, batch: int, runtime: bool) -> Prepared:
    """Build and compile; nothing is timed here."""
    entry = ZOO[name]()
    inputs = sized_inputs(entry, {"batch": batch, "seq": LENGTH, "target": LENGTH})
    shapes = entry.dynamic_shapes
    exe = treadle.compile(entry.model, entry.inputs, dynamic_shapes=shapes, threads=1)
    actions: dict[str, Callable[[], object]] = {
        "Treadle": lambda: exe(*inputs),
        "PyTorch": lambda: entry.model(*inputs),
    }
    if runtime:
        actions["ONNX Runtime"] = runtime_call(entry, inputs)
    return Prepared(name, entry, inputs, exe, actions)


def measure(work: Prepared, seconds: float) -> Row:
    """Time all sides in turns, after a look at whether they agree."""
    with torch.inference_mode():
        found = difference(work.exe(*work.inputs), work.entry.model(*work.inputs))
        times = interleaved(work.actions, seconds=seconds)
    shapes = " ".join("×".join(map(str, x.shape)) for x in work.inputs[:1])
    return Row(work.name, shapes, gflop(work.entry, work.inputs), times, found.error)


def table_of(rows: list[Row], peak: float) -> Table:
    """Medians, minima, ratios to PyTorch eager (median / minimum), and the share of the peak."""
    table = Table("model", "by", "median", "minimum", "ratio", "of peak", "error")
    for row in rows:
        base = row.times["PyTorch"]
        for k, (side, time) in enumerate(row.times.items()):
            table.add_row(
                (row.name, row.shapes)[k] if k < 2 else "",
                side,
                f"{time.median * 1e3:.2f} ms",
                f"{time.minimum * 1e3:.2f} ms",
                f"{time.median / base.median:.2f} / {time.minimum / base.minimum:.2f}",
                f"{row.gflop / time.minimum / peak:.1%}",
                f"{row.error:.0e}" if k == 0 else "",
            )
    for column in table.columns:
        column.no_wrap = True
    return table


def main() -> int:
    """Run the comparison; the exit status."""
    parser = argparse.ArgumentParser(description="Time models beside PyTorch and ONNX Runtime.")
    parser.add_argument("models", nargs="*", help=f"of {', '.join(ZOO)}; default: those in front")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="measured time for each model")
    parser.add_argument("--no-onnxruntime", action="store_true", help="leave ONNX Runtime out")
    parser.add_argument("--profile", action="store_true", help="print the time of each kernel")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the exporters warn about themselves
    names = options.models or list(LIMITS)
    console = Console(width=110)
    runtime = onnxruntime is not None and not options.no_onnxruntime
    with console.status("compiling"):
        prepared = [prepare(name, options.batch, runtime) for name in names]

    torch.set_num_threads(1)
    core = pin_to_one_core()
    target = Target.native()
    peak, bandwidth = fma_peak(target), copy_bandwidth()
    console.print(
        f"core {core}: {peak:.0f} GFLOP/s of f32 multiply-adds, {bandwidth:.1f} GB/s of copying"
    )
    rows: list[Row] = []
    for work in prepared:
        with console.status(f"measuring {work.name}"):
            rows.append(measure(work, options.seconds))
        if options.profile:
            console.print(str(work.exe.profile(*work.inputs)), markup=False, highlight=False)
    console.print(table_of(rows, peak))
    console.print(f"peak after the measurements: {fma_peak(target):.0f} GFLOP/s")
    late = [r for r in rows if r.ratio > LIMITS.get(r.name, float("inf"))]
    for row in rows:
        if row.name in LIMITS:
            verdict = "above" if row in late else "within"
            console.print(f"{row.name}: {row.ratio:.2f} × PyTorch, {verdict} {LIMITS[row.name]}")
    return 1 if options.check and late else 0


if __name__ == "__main__":
    sys.exit(main())
