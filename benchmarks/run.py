"""Treadle beside its peers: one harness for kernels and models, and one table.

    python benchmarks/run.py gemm                  # a family; no name: gemm to models
    python benchmarks/run.py --only 'GEMM 512'     # the rows with this in their name
    python benchmarks/run.py models --threads 2 --backends treadle,onnxruntime
    python benchmarks/run.py --list                # every family and row

With ``--check`` the exit status is 1 if a bar is missed. ``--json`` and ``--plot`` write files.
"""

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Run the harness of this checkout; the exit status."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    return importlib.import_module("benchmarks.harness.cli").main()


if __name__ == "__main__":
    sys.exit(main())
