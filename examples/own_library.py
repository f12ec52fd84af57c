"""Let a C function of your own compute the layer normalizations of a model, and OpenBLAS its
products.

Needs a C compiler (``cc``) and ``pip install "treadle[blas]"``.

python examples/own_library.py
"""

import subprocess
import tempfile
from pathlib import Path

import torch

import treadle
from treadle.expr.dtype import f32
from treadle.libraries import Field, Library, Lowering, dims, is_op, leading, openblas, tensor
from treadle.ops import LayerNorm

SOURCE = r"""
#include <math.h>
#include <stdint.h>

/* Each of the rows of x, less its mean, divided by its deviation, times w, plus b. */
int normalize_rows(const float *x, const float *w, const float *b, float *y,
                   int64_t rows, int64_t n, double eps) {
    if (n == 0) return 1;
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < n; i++) mean += x[i];
        mean /= n;
        for (int64_t i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
        double scale = 1 / sqrt(square / n + eps);
        for (int64_t i = 0; i < n; i++) y[i] = (float)((x[i] - mean) * scale) * w[i] + b[i];
    }
    return 0;
}
"""
PROTOTYPE = """int normalize_rows(const float *x, const float *w, const float *b, float *y,
                                  int64_t rows, int64_t n, double eps)"""


def built(folder: Path) -> Path:
    """The shared object."""
    (folder / "rows.c").write_text(SOURCE)
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", "librows.so", "rows.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "librows.so"


def library(path: Path) -> Library:
    """What is in it, and what of a model it computes."""
    rows, n = dims("rows n")
    x, y = tensor(f32, leading(rows), n), tensor(f32, leading(rows), n)
    w, b = tensor(f32, n), tensor(f32, n)
    norm = is_op(LayerNorm, x, w, b)
    arguments = (x, w, b, y, rows, n, Field(norm, "eps"))
    return Library("mine", (Lowering(norm, y, PROTOTYPE, arguments),), path)


def main() -> None:
    """Run the whole example."""
    torch.manual_seed(0)
    layers = (
        *(torch.nn.LayerNorm(256), torch.nn.Linear(256, 512), torch.nn.GELU()),
        *(torch.nn.LayerNorm(512, eps=1e-3), torch.nn.Linear(512, 64)),
    )
    model = torch.nn.Sequential(*layers).eval()
    batch = torch.export.Dim("batch", min=0, max=1024)
    with tempfile.TemporaryDirectory() as folder:
        exe = treadle.compile(
            model,
            (torch.randn(4, 256),),
            dynamic_shapes=({0: batch},),
            libraries=[openblas(threads=1), library(built(Path(folder)))],
        )
        for choice in exe.library_choices:
            print(choice)
        for size in (0, 1, 7, 300):
            x = torch.randn(size, 256)
            with torch.no_grad():
                torch.testing.assert_close(exe(x), model(x))
        print("batches of 0, 1, 7 and 300 match PyTorch")
        print(exe.profile(torch.randn(300, 256)))


if __name__ == "__main__":
    main()
