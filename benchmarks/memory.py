"""Peak memory of BERT-base while it runs, beside what the plan says.

The executable is saved, and loaded in a process without PyTorch. There it is loaded once, called
and dropped, so that what Python's and LLVM's allocators keep is not counted; the resident memory
then is the base. It is loaded again. What is resident now, less the base, must be its weights (the
bytes of its constants) and little more.

Before each size's calls, the process's mark of its highest resident memory is cleared (through
``/proc/self/clear_refs``), and read after them. What it rose above the memory that was resident
after loading, less the call's inputs and outputs, is what the calls took. Weights and this together
are the peak. It must not be above weights + 1.2 × arena, where "arena" is what ``exe.memory()``
plans for these sizes. Beside the arena stands the most of it that holds values at one time: no plan
can do with less. The exit status is 1 if one of the two does not hold.

    python benchmarks/memory.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.child import environment
from rich.console import Console
from rich.table import Table

CHILD = Path(__file__).parent / "common" / "memory_child.py"
SIZES = ((1, 128), (4, 128), (1, 512), (16, 128))
ARENAS = 1.2
HELD = 1.05


def child(*arguments: str) -> dict[str, Any]:
    """What a fresh process reports."""
    command = [sys.executable, str(CHILD), *arguments]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description="Measure the memory of a running model.")
    parser.add_argument("--model", default="bert_base", help="a language model of the zoo")
    parser.add_argument("--tiny", action="store_true", help="the small variant")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder, console.status("compiling and measuring"):
        path = str(Path(folder) / "model.treadle")
        tiny = ["--tiny"] if options.tiny else []
        saved = child("save", path, "--model", options.model, *tiny)
        top = 40 if options.tiny else 512
        sizes = [f"{batch}x{min(length, top)}" for batch, length in SIZES]
        report = child("run", path, "--threads", str(options.threads), "--sizes", *sizes)
    mib = 2.0**20
    console.print(
        f"{options.model}: parameters {saved['parameters'] / mib:.1f} MiB, "
        f"constants of the executable {report['weights'] / mib:.1f} MiB, "
        f"resident after loading {report['loaded'] / mib:.1f} MiB above the base of "
        f"{report['base'] / mib:.1f} MiB; highest during loading "
        f"{report['loading'] / mib:.1f} MiB"
    )
    weights = report["weights"]
    names = (
        "batch × length", "arena", "live at once", "inputs + outputs", "peak", "limit",
        "taken / arena",
    )  # fmt: skip
    table = Table(*names, title="MiB")
    passed = report["loaded"] <= weights * HELD
    for call in report["calls"]:
        taken = call["peak"] - call["tensors"]
        peak, limit = weights + taken, weights + ARENAS * call["arena"]
        passed &= peak <= limit
        figures = [call["arena"], call["live"], call["tensors"], peak, limit]
        ratio = f"{taken / max(call['arena'], 1):.2f}"
        size = call["size"].replace("x", " × ")
        table.add_row(size, *(f"{value / mib:.1f}" for value in figures), ratio)
    console.print(table)
    console.print("within the limits" if passed else "[red]above a limit[/red]")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
