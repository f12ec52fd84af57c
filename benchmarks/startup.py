"""How long it takes until a model runs: import, cold and warm compilation of ResNet-18, loading.

Each figure comes from a process of its own. The cold one starts with an empty folder of cached
objects, the warm one with what the cold one left. Importing PyTorch and exporting the model are
PyTorch's work and shown by themselves; "compile" is ``treadle.compile`` on the exported program,
and what PyTorch's decompositions take of it is shown too.

    python benchmarks/startup.py
    python benchmarks/startup.py --profile     # where the warm compilation spends its time
    python benchmarks/startup.py --check       # exit status 1 if a figure is above its limit
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.child import environment
from rich.console import Console
from rich.table import Table

CHILD = Path(__file__).parent / "common" / "startup_child.py"
IMPORTS = 7
LIMITS = {"import treadle": 0.3, "cold compile": 15.0, "warm compile": 1.0}


def child(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a fresh process reports, with ``folder`` as the home of cached objects."""
    command = [sys.executable, str(CHILD), *arguments]
    env = environment(TREADLE_CACHE=str(folder / "cache"))
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stages(title: str, report: dict[str, Any]) -> Table:
    """The stages of one compilation, in order."""
    table = Table("stage", "seconds", title=title)
    for name, seconds in report["stages"]:
        table.add_row(name, f"{seconds:.3f}")
    return table


def main() -> int:
    """Measure everything; the exit status."""
    parser = argparse.ArgumentParser(description="Time import, compilation and loading.")
    parser.add_argument("--model", default="resnet18", help="a model of the zoo")
    parser.add_argument("--tiny", action="store_true", help="the small variant")
    parser.add_argument("--profile", action="store_true", help="profile the warm compilation")
    parser.add_argument("--check", action="store_true", help="fail above the limits")
    options = parser.parse_args()
    console = Console(width=110)
    model = [options.model, *(["--tiny"] if options.tiny else [])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved = str(folder / "model.treadle")
        imports = [child(folder, "import") for _ in range(IMPORTS)]
        cold = child(folder, "compile", *model, "--save", saved)
        warm = [child(folder, "compile", *model) for _ in range(3)]
        loads = [child(folder, "load", saved) for _ in range(3)]
        if options.profile:
            console.print(
                child(folder, "compile", *model, "--profile")["profile"],
                markup=False,
                highlight=False,
            )
    foreign = sorted({m for report in imports for m in report["foreign"]})
    best_warm = min(warm, key=lambda r: r["compile"])
    best_load = min(loads, key=lambda r: r["load"])
    figures = {
        "import treadle": statistics.median(r["import"] for r in imports),
        "import treadle and its compiler": statistics.median(r["compiler"] for r in imports),
        "import torch": cold["torch"],
        "torch.export of the model": cold["export"],
        "cold compile": cold["compile"],
        "  of it PyTorch's decompositions": cold["decompositions"],
        "warm compile": best_warm["compile"],
        "  of it PyTorch's decompositions ": best_warm["decompositions"],
        "load of the saved file": best_load["load"],
        "first call after a load": best_load["call"],
    }
    console.print(stages("cold compile", cold), stages("warm compile", best_warm))
    table = Table("what", "seconds", "limit", title=options.model)
    for what, seconds in figures.items():
        limit = LIMITS.get(what)
        table.add_row(what, f"{seconds:.3f}", "" if limit is None else f"{limit}")
    console.print(table)
    console.print(f"imported along by treadle: {', '.join(foreign) or 'neither torch nor onnx'}")
    late = [what for what, limit in LIMITS.items() if figures[what] > limit]
    for what in late:
        console.print(f"[red]{what} took {figures[what]:.2f} s, more than {LIMITS[what]}[/red]")
    return 1 if options.check and (late or foreign) else 0


if __name__ == "__main__":
    sys.exit(main())
