"""From scheduled blocks to finished loops: the order of the loop-level passes."""

from collections.abc import Callable

from treadle.ir.tensor import TensorFunction
from treadle.passes.balance_tails import balance_tails
from treadle.passes.check_threads import check_threads
from treadle.passes.flatten_buffers import flatten_buffers
from treadle.passes.hoist_conditions import hoist_conditions
from treadle.passes.lower_blocks import lower_blocks
from treadle.passes.lower_storage import demote_registers, vector_storage
from treadle.passes.shrink_allocations import shrink_allocations
from treadle.passes.sink_allocations import sink_allocations
from treadle.passes.skip_zeros import skip_zeros
from treadle.passes.specialize_tails import specialize_tails
from treadle.passes.unroll import unroll
from treadle.passes.vectorize import vectorize

LOOP_PASSES: tuple[Callable[[TensorFunction], TensorFunction], ...] = (
    check_threads,
    sink_allocations,
    lower_blocks,
    skip_zeros,
    hoist_conditions,
    shrink_allocations,
    balance_tails,
    specialize_tails,
    flatten_buffers,
    vectorize,
    vector_storage,
    unroll,
    demote_registers,
)


def lower_loops(function: TensorFunction) -> TensorFunction:
    """Take a scheduled function to what code is generated from: no blocks, no unrolled or
    vectorized loops left.
    """
    for step in LOOP_PASSES:
        function = step(function)
    return function
