"""A process that measures what the cores can do at most: multiply-adds, and copying memory."""

import argparse
import json
import sys

from treadle.target import Target

from ..common.peaks import copy_bandwidth, dot_peak, fma_peak
from .worker import pin, private_output, serve


class Machine:
    """Answers with peaks."""

    def peak(self, kind: str) -> dict[str, float]:
        """Thousand millions of operations a second on one core; a multiply-add is two."""
        target = Target.native()
        return {"gflops": fma_peak(target) if kind == "f32" else dot_peak(target, kind)}

    def copy(self, touched: int) -> dict[str, float]:
        """GB/s of copying within so many bytes on one core; read and written bytes count."""
        return {"gbytes": copy_bandwidth(touched)}


if __name__ == "__main__":
    PARSER = argparse.ArgumentParser()
    PARSER.add_argument("--cores", type=json.loads, required=True)
    pin(PARSER.parse_args().cores)
    OUTPUT = private_output()
    serve(Machine, sys.stdin, OUTPUT)
