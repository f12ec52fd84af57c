"""Traces are values: they print, read back and apply again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.base.errors import ScheduleError
from treadle.ir.tensor import THREAD_AXES
from treadle.schedule.annotate import Annotate, Unannotate
from treadle.schedule.axis_order import ReorderBlockIterVar
from treadle.schedule.block_layout import TransformBlockLayout
from treadle.schedule.cache import CacheRead, CacheWrite, SetScope
from treadle.schedule.compute_at import ComputeAt, ReverseComputeAt
from treadle.schedule.decompose_padding import DecomposePadding
from treadle.schedule.index_map import index_map
from treadle.schedule.inline import ComputeInline
from treadle.schedule.layout import TransformLayout
from treadle.schedule.loops import Fuse, Parallel, Reorder, Unroll, Vectorize
from treadle.schedule.merge import Merge
from treadle.schedule.pad_einsum import PadEinsum
from treadle.schedule.partition import LoopPartition
from treadle.schedule.prefetch import Prefetch
from treadle.schedule.reduction import DecomposeReduction, RFactor
from treadle.schedule.reverse_inline import FuseReductionEpilogue, ReverseComputeInline
from treadle.schedule.rolling_buffer import RollingBuffer
from treadle.schedule.specialize import Specialize
from treadle.schedule.split import TAILS, Split
from treadle.schedule.thread_axes import Bind
from treadle.schedule.trace import Schedule, apply_trace, parse_trace, trace_text
from treadle.schedule.unit_loop import AddUnitLoop
from treadle.testing import assert_same_ir, ir

MATMUL = """
    @tensor.function
    def matmul(A: Buffer[(m, 8), f32], B: Buffer[(8, 32), f32], Y: Output[(m, 32), f32]):
        T = alloc((m, 32), f32)
        for i in range(m):
            for j in range(32):
                for k in range(8):
                    with block("T"):
                        vi = spatial(m, i)
                        vj = spatial(32, j)
                        vk = reduction(8, k)
                        with init():
                            T[vi, vj] = f32(0.0)
                        T[vi, vj] = T[vi, vj] + A[vi, vk] * B[vk, vj]
        for p in range(m):
            for q in range(32):
                with block("Y"):
                    yp = spatial(m, p)
                    yq = spatial(32, q)
                    Y[yp, yq] = max(T[yp, yq], f32(0.0))
"""

NAMES = st.sampled_from(["i", "j_0", "block", 'a"b'])
MAPS = st.sampled_from(
    [
        index_map(lambda k, j: (j // 64, k, j % 64)),
        index_map(lambda i: (i * 2 + 1,)),
        index_map(lambda a, b: (-a, b)),
    ]
)
PLAIN = st.one_of(
    st.builds(
        Split, NAMES, st.lists(st.none() | st.integers(1, 9), min_size=1, max_size=3).map(tuple)
    ),
    st.builds(Split, NAMES, st.just((None, 4)), st.sampled_from(TAILS)),
    st.builds(LoopPartition, NAMES, st.lists(st.integers(1, 9), max_size=3).map(tuple)),
    st.builds(ReorderBlockIterVar, NAMES, st.permutations(range(3)).map(tuple)),
    st.builds(Merge, st.lists(NAMES, max_size=3).map(tuple)),
    st.builds(Bind, NAMES, st.sampled_from(THREAD_AXES), st.booleans()),
    st.builds(Annotate, NAMES, NAMES, st.text() | st.integers() | st.booleans()),
    st.builds(Unannotate, NAMES, NAMES),
    st.builds(Prefetch, NAMES, NAMES, st.integers(1, 9)),
    st.builds(AddUnitLoop, NAMES),
    st.builds(Fuse, st.lists(NAMES, max_size=3).map(tuple)),
    st.builds(Reorder, st.lists(NAMES, max_size=3).map(tuple), st.booleans()),
    *(
        st.builds(c, NAMES)
        for c in (Vectorize, Unroll, Parallel, ComputeInline, ReverseComputeInline, RFactor)
    ),
    *(st.builds(c, NAMES, NAMES) for c in (ComputeAt, ReverseComputeAt, DecomposeReduction)),
    *(st.builds(c, NAMES, st.just("stack")) for c in (CacheWrite, SetScope)),
    st.builds(CacheRead, NAMES, NAMES, st.just("register")),
    st.builds(TransformLayout, NAMES, MAPS, st.none() | st.floats(-2, 2)),
    st.builds(TransformBlockLayout, NAMES, MAPS),
    st.builds(PadEinsum, NAMES, st.lists(st.integers(1, 9), max_size=3).map(tuple)),
    *(st.builds(c, NAMES, NAMES) for c in (DecomposePadding, RollingBuffer)),
    st.builds(FuseReductionEpilogue, NAMES, NAMES, st.booleans()),
)
TRACES = st.lists(PLAIN, max_size=2).map(tuple)
INSTRUCTIONS = PLAIN | st.builds(Specialize, st.sampled_from(["n == 1", "n < m"]), TRACES, TRACES)


@given(st.lists(INSTRUCTIONS, max_size=5).map(tuple))
def test_print_then_parse_is_identity(trace):
    assert parse_trace(trace_text(trace)) == trace


def scheduled():
    s = Schedule(ir(MATMUL).tensor_functions[0])
    i_0, i_1 = s.split("i", (None, 6))
    j_0, j_1, j_2 = s.split("j", (None, 2, 8))
    s.reorder(j_0, i_0, "k", i_1, j_1, j_2)
    copy = s.cache_write("T", "register")
    s.reverse_compute_at(copy, i_0)
    s.reverse_compute_at("Y", i_0)
    start = s.decompose_reduction("T", "k")
    s.vectorize(j_2)
    s.unroll(i_1)
    s.parallel(j_0)
    return s, (i_0, i_1, j_0, j_1, j_2, copy, start)


def test_methods_return_the_names_of_what_they_made():
    _, names = scheduled()
    assert names == ("i_0", "i_1", "j_0", "j_1", "j_2", "T_copy", "T_init")


def test_a_trace_read_back_gives_the_same_program():
    s, _ = scheduled()
    start = ir(MATMUL).tensor_functions[0]
    assert_same_ir(apply_trace(start, parse_trace(trace_text(s.trace))), s.function)


def test_a_trace_reads_as_python_calls():
    s, _ = scheduled()
    lines = trace_text(s.trace).splitlines()
    assert lines[0] == 'split("i", (None, 6))'
    assert lines[2] == 'reorder(("j_0", "i_0", "k", "i_1", "j_1", "j_2"))'


def test_other_methods_return_names_and_shapes():
    s = Schedule(ir(MATMUL).tensor_functions[0])
    assert s.fuse("p", "q") == "p_q"
    assert s.cache_read("T", "A", "stack") == "A_stack"
    assert s.transform_layout("B", lambda k, j: (j // 16, k, j % 16)) == ("2", "8", "16")
    s.set_scope("A_stack", "global")
    assert s.rfactor("k") == "T_rf"


def test_a_refused_instruction_leaves_the_schedule_as_it_was():
    s = Schedule(ir(MATMUL).tensor_functions[0])
    before = s.function
    with pytest.raises(ScheduleError):
        s.vectorize("i")
    assert s.function is before
    assert s.trace == ()


@pytest.mark.parametrize(
    "text",
    [
        "split(",
        "x = 1",
        'shred("i")',
        'split("i", 2, 3, 4)',
        "split(i, (None, 2))",
        'transform_layout("B", lambda k: k)',
        'transform_layout("B", lambda k: (k ** 2,))',
    ],
)
def test_what_is_no_trace_is_refused(text):
    with pytest.raises(ScheduleError) as caught:
        parse_trace(text)
    assert caught.value.code == "E0300"
