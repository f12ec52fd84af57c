"""A Llama beside PyTorch, torch.compile, ONNX Runtime, OpenVINO and llama.cpp.

    python benchmarks/language_speed.py                     # 110 million parameters, one thread
    python benchmarks/language_speed.py --size 1.1b --threads 2
    python benchmarks/language_speed.py --kinds f32,int4 --peers treadle,llama_cpp

With ``--check`` the exit status is 1 if a bar is missed.
"""

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Run the comparison of this checkout; the exit status."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    return importlib.import_module("benchmarks.language.cli").main()


if __name__ == "__main__":
    sys.exit(main())
