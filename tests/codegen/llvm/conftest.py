import ctypes
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from treadle.codegen.llvm.kernel import kernel_symbol, kernel_text, module_text
from treadle.codegen.llvm.object import compile_here
from treadle.ir.tensor import TensorFunction
from treadle.target import Target
from treadle_runtime.loader import load
from treadle_runtime.threads import runtime_symbols

C_TYPES = {"f4": ctypes.c_float, "f8": ctypes.c_double, "i8": ctypes.c_int64, "i4": ctypes.c_int32}

RunKernel = Callable[..., None]
NATIVE = Target.native()


@pytest.fixture(scope="session")
def run_kernel() -> RunKernel:
    """Compile a tensor function for this machine and call it on arrays, symbols and scalars."""

    def run(
        function: TensorFunction,
        *arrays: np.ndarray,
        symbols: Sequence[int] = (),
        scalars: Sequence[np.generic] = (),
        pool: int | None = None,
        target: Target = NATIVE,
    ) -> None:
        text = module_text([kernel_text(function, target)], "", target)
        symbol = kernel_symbol(function.name)
        imports = runtime_symbols() if "parallel_for" in text else {}
        code = load(compile_here(text, target), [symbol], imports)
        kinds = [ctypes.c_void_p] * (1 + len(arrays)) + [ctypes.c_int64] * len(symbols)
        kinds += [C_TYPES[s.dtype.str[1:]] for s in scalars]
        call = ctypes.CFUNCTYPE(None, *kinds)(code[symbol])
        values = [s.item() for s in scalars]
        call(pool, *(a.ctypes.data for a in arrays), *symbols, *values)

    return run
