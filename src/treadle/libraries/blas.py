"""OpenBLAS, as the package ``scipy-openblas64`` brings it: products of matrices."""

import ctypes
from importlib import import_module
from pathlib import Path

from treadle.base.errors import OptionError
from treadle.expr.dtype import DType, f32, f64
from treadle.expr.scalar import maximum
from treadle.libraries.library import Library, Lowering
from treadle.libraries.pattern import dims, is_op, leading, tensor
from treadle.ops import Matmul, Permute

_PACKAGE = "scipy_openblas64"
_ROWS_FIRST, _PLAIN, _TRANSPOSED = 101, 111, 112
_PROTOTYPE = (
    "void scipy_cblas_{letter}gemm64_(int order, int transa, int transb, int64_t m, int64_t n,"
    " int64_t k, {c} alpha, const {c} *a, int64_t lda, const {c} *b, int64_t ldb, {c} beta,"
    " {c} *c, int64_t ldc)"
)


def openblas(*, threads: int | None = None, priority: int = 1) -> Library:
    """Products of f32 and f64 by ``sgemm`` and ``dgemm``: a matrix, or a batch of rows, by a matrix
    that is stored by rows or by columns.

    ``threads`` is how many threads OpenBLAS uses in this process, from now on. ``priority`` is that
    of all its functions (see ``Lowering``).

    Raises:
        OptionError: E0853 if the package ``scipy-openblas64`` is not installed.
    """
    path = _find()
    if threads is not None:
        ctypes.CDLL(str(path)).scipy_openblas_set_num_threads64_(threads)
    return Library(
        "openblas",
        tuple(
            _gemm(dtype, letter, transposed, priority)
            for dtype, letter in ((f32, "s"), (f64, "d"))
            for transposed in (False, True)
        ),
        path,
    )


def _find() -> Path:
    try:
        package = import_module(_PACKAGE)
    except ImportError as error:
        raise OptionError(
            "E0853",
            "OpenBLAS is not installed",
            notes=(str(error),),
            help="pip install scipy-openblas64, or treadle[blas]",
        ) from error
    return next(Path(package.get_lib_dir()).glob("libscipy_openblas64_.*"))


def _gemm(dtype: DType, letter: str, transposed: bool, priority: int) -> Lowering:
    m, n, k = dims("m n k")
    a, c = tensor(dtype, leading(m), k), tensor(dtype, leading(m), n)
    b = tensor(dtype, n, k) if transposed else tensor(dtype, k, n)
    right = is_op(Permute, b, axes=(1, 0)) if transposed else b
    # A row is at least one element apart from the next, even where it has none.
    wide, deep = maximum(n, 1), maximum(k, 1)
    order, columns = (_TRANSPOSED, deep) if transposed else (_PLAIN, wide)
    return Lowering(
        is_op(Matmul, a, right),
        c,
        _PROTOTYPE.format(letter=letter, c="float" if dtype == f32 else "double"),
        (_ROWS_FIRST, _PLAIN, order, m, n, k, 1.0, a, deep, b, columns, 0.0, c, wide),
        name=f"{letter}gemm_nt" if transposed else f"{letter}gemm",
        priority=priority,
    )
