"""Bindings that step through domains, regions that are covered, stages in a row."""

import pytest

from treadle.base.errors import ScheduleError
from treadle.schedule.bindings import binding_state
from treadle.schedule.loops import Fuse, Reorder
from treadle.schedule.nest import block_sites
from treadle.schedule.partition import LoopPartition
from treadle.schedule.split import TAILS, Split
from treadle.schedule.state import scope_state, validate
from treadle.schedule.trace import apply_trace
from treadle.testing import ir


def function_of(text):
    return ir(text).tensor_functions[0]


def bound(loops, axes, where=""):
    """A block over ``axes`` (extent and binding) in ``loops`` (name and extent)."""
    lines = ["@tensor.function", "def f(Y: Output[(n, 64), f32]):"]
    depth = 1
    for name, extent in loops:
        lines.append("    " * depth + f"for {name} in range({extent}):")
        depth += 1
    lines.append("    " * depth + 'with block("Y"):')
    for number, (extent, binding) in enumerate(axes):
        lines.append("    " * (depth + 1) + f"v{number} = spatial({extent}, {binding})")
    if where:
        lines.append("    " * (depth + 1) + f"where({where})")
    lines.append("    " * (depth + 1) + "Y[0, v0] = f32(1.0)")
    return function_of("\n".join(lines))


def state_of(function):
    return binding_state(function, block_sites(function)[0])


@pytest.mark.parametrize(
    ("loops", "axes", "where"),
    [
        ([("i", "n")], [("n", "i")], ""),
        ([("i", "n"), ("j", 8)], [("n * 8", "i * 8 + j")], ""),
        ([("i", 32)], [(8, "i // 4"), (4, "i % 4")], ""),
        ([("i", "n * 4")], [("n", "i // 4"), (4, "i % 4")], ""),
        ([("i", 64)], [(4, "i // 16"), (4, "i // 4 % 4"), (4, "i % 4")], ""),
        ([("i", "(n + 5) // 6"), ("j", 6)], [("n", "i * 6 + j")], "i * 6 + j < n"),
        ([("i", 4), ("u", 1)], [(4, "i + u")], ""),
        ([("i", 3), ("j", 4)], [(8, "i * 2 + j")], ""),
        (
            [("i", "(n * 64 + 15) // 16"), ("j", 16)],
            [("n", "(i * 16 + j) // 64"), (64, "(i * 16 + j) % 64")],
            "i * 16 + j < n * 64",
        ),
    ],
)
def test_independent_and_covering_bindings_are_accepted(loops, axes, where):
    state = state_of(bound(loops, axes, where))
    assert state.why is None
    assert state.covering
    assert state.independent
    assert state.affine


@pytest.mark.parametrize(
    ("loops", "axes", "where", "independent", "why"),
    [
        ([("i", 4)], [(4, "i"), (8, "i * 2")], "", False, "twice"),
        ([("i", 4)], [(4, "i"), (4, "i")], "", False, "twice"),
        ([("i", 8)], [(4, "i // 2"), (4, "i % 4")], "", False, "twice"),
        ([("i", 4), ("j", 4)], [(16, "i * 4 + j"), (4, "j")], "", False, "twice"),
        ([("i", 4)], [(8, "i * 2")], "", True, "between"),
        ([("i", 8), ("j", 6)], [(64, "i * 8 + j")], "", True, "between"),
        ([("i", 8)], [(9, "i + 1")], "", True, "zero"),
        ([("i", 7)], [(8, "i")], "", True, "end of its domain"),
        ([("i", 10)], [(3, "i // 4"), (4, "i % 4")], "", True, "end of a loop"),
        ([("i", 8)], [(8, "i")], "i > 2", True, "condition"),
        ([("i", 8)], [(64, "i * i")], "", False, "sum of parts"),
    ],
)
def test_other_bindings_are_told_why_not(loops, axes, where, independent, why):
    state = state_of(bound(loops, axes, where))
    assert not state.covering
    assert state.independent == independent
    assert why in state.why


CHAIN = """
    @tensor.function
    def chain(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        A = alloc((n, 8), f32)
        for i in range(n):
            for j in range(8):
                with block("A"):
                    ai = spatial(n, i)
                    aj = spatial(8, j)
                    A[ai, aj] = X[ai, aj] + f32(1.0)
        for p in range(n):
            for q in range(8):
                with block("Y"):
                    yp = spatial(n, p)
                    yq = spatial(8, q)
                    Y[yp, yq] = A[yp, yq] * f32(3.0)
"""


def test_a_producer_covers_its_consumer_before_and_after_it_is_split_or_fused():
    function = function_of(CHAIN)
    for trace in (
        (),
        (Fuse(("i", "j")), Split("i_j", (None, 5))),
        (Split("i", (None, 3)), Split("j", (2, 4)), Reorder(("j_0", "i_0"))),
        *((Split("i", (None, 3), tail),) for tail in ("guard", "mask", "peel")),
        *((Split("j", (None, 3), tail),) for tail in TAILS if tail != "pad"),
        (LoopPartition("i", (2, 5)),),
        (LoopPartition("j", (2, 5)), Split("q", (None, 3), "peel")),
    ):
        after = apply_trace(function, trace)
        validate(after)
        assert scope_state(after).stage_pipeline


def test_states_are_worked_out_once_for_a_function():
    function = function_of(CHAIN)
    assert scope_state(function) is scope_state(function)


def test_a_gap_in_what_is_written_is_shown():
    text = CHAIN.replace("for j in range(8)", "for j in range(4)").replace(
        "aj = spatial(8, j)", "aj = spatial(4, j)"
    )
    function = function_of(text)
    assert not scope_state(function).block("Y").region_cover
    assert not scope_state(function).stage_pipeline
    with pytest.raises(ScheduleError) as caught:
        validate(function)
    assert caught.value.code == "E0357"
    assert "'A'" in str(caught.value)


def test_bindings_that_leave_out_points_are_shown():
    text = CHAIN.replace("aj = spatial(8, j)", "aj = spatial(16, j * 2)")
    with pytest.raises(ScheduleError) as caught:
        validate(function_of(text))
    assert caught.value.code == "E0356"
    assert "aj = spatial(16, j * 2)\n" in str(caught.value)


def test_what_is_written_after_it_was_read_is_no_pipeline():
    text = CHAIN.replace("Y[yp, yq] = A[yp, yq]", "A[yp, yq] = Y[yp, yq]").replace(
        "A[ai, aj] = X[ai, aj] + f32(1.0)", "A[ai, aj] = X[ai, aj] + Y[ai, aj]"
    )
    state = scope_state(function_of(text))
    assert not state.block("A").region_cover
    assert not state.stage_pipeline


def test_an_update_without_a_start_is_not_covered():
    text = CHAIN.replace("Y[yp, yq] = A[yp, yq]", "Y[yp, yq] = Y[yp, yq] + A[yp, yq]")
    assert [a.buffer.name for a in scope_state(function_of(text)).block("Y").uncovered] == ["Y"]
