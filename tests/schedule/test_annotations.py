"""annotate and unannotate, and how notes print, read back and pass through lowering."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.base.errors import ParseError, ScheduleError
from treadle.ir.verify import verify_tensor_function
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.annotate import Annotate, Unannotate
from treadle.schedule.loops import Fuse, Reorder, Vectorize
from treadle.schedule.trace import Schedule, parse_trace, trace_text
from treadle.testing import assert_same_ir, ir

SCALE = """
    @tensor.function
    def scale(X: Buffer[(n, 64), f32], Y: Output[(n, 64), f32]):
        for i in range(n):
            for j in range(64):
                with block("Y"):
                    vi = spatial(n, i)
                    vj = spatial(64, j)
                    Y[vi, vj] = X[vi, vj] * f32(2.0)
"""
VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
)


def function_of(text):
    return ir(text).tensor_functions[0]


def test_notes_are_printed_with_the_loop_or_the_block():
    s = Schedule(function_of(SCALE))
    s.annotate("i", "grain", 4)
    s.annotate("i", "far", True)
    s.annotate("Y", "core", 'a "name"')
    wanted = SCALE.replace("range(n)", "range(n, far=True, grain=4)").replace(
        'block("Y")', 'block("Y", core="a \\"name\\"")'
    )
    assert_same_ir(s.function, function_of(wanted))
    s.unannotate("i", "far")
    s.unannotate("i", "grain")
    s.unannotate("Y", "core")
    assert_same_ir(s.function, function_of(SCALE))


def test_a_note_of_the_same_key_is_replaced():
    once = Annotate("i", "grain", 4).apply(function_of(SCALE))
    assert "grain=8" in str(Annotate("i", "grain", 8).apply(once))


@given(st.sampled_from(["i", "Y"]), st.sampled_from(["grain", "ß", "x1"]), VALUES)
def test_notes_of_every_value_read_back(target, key, value):
    instruction = Annotate(target, key, value)
    assert parse_trace(trace_text((instruction,))) == (instruction,)
    after = instruction.apply(function_of(SCALE))
    verify_tensor_function(after)
    again = function_of(str(after))
    assert_same_ir(again, after)
    node = again.body[0] if target == "i" else again.body[0].body[0].body[0]
    assert node.annotations == ((key, value),)
    assert type(node.annotations[0][1]) is type(value)


def test_notes_travel_with_loops_that_are_moved_or_given_a_kind():
    function = Annotate("j", "near", 1).apply(function_of(SCALE))
    assert "for j in vectorized(64, near=1)" in str(Vectorize("j").apply(function))
    assert "for j in range(64, near=1)" in str(Reorder(("j", "i")).apply(function))


def test_lowering_leaves_notes_alone_that_it_does_not_know():
    plain = lower_loops(function_of(SCALE))
    noted = Annotate("Y", "core", 2).apply(Annotate("i", "grain", 4).apply(function_of(SCALE)))
    assert str(lower_loops(noted)).replace(", grain=4", "") == str(plain)


@pytest.mark.parametrize(
    ("instruction", "text", "code"),
    [
        (Annotate("z", "grain", 1), SCALE, "E0301"),
        (Annotate("i", "grain size", 1), SCALE, "E0354"),
        (Annotate("i", "for", 1), SCALE, "E0354"),
        (Annotate("i", "grain", float("nan")), SCALE, "E0354"),
        (Annotate("i", "grain", (1, 2)), SCALE, "E0354"),
        (Unannotate("z", "grain"), SCALE, "E0301"),
        (Unannotate("i", "grain"), SCALE, "E0354"),
        (Fuse(("i", "j")), SCALE.replace("range(n)", "range(n, grain=1)"), "E0350"),
    ],
)
def test_refusals(instruction, text, code):
    with pytest.raises(ScheduleError) as caught:
        instruction.apply(function_of(text))
    assert caught.value.code == code
    assert caught.value.excerpt


@pytest.mark.parametrize("note", ["grain=n", "grain=(1, 2)", "grain=None", "**grain"])
def test_what_is_no_note_is_not_read(note):
    with pytest.raises(ParseError) as caught:
        function_of(SCALE.replace("range(n)", f"range(n, {note})"))
    assert caught.value.code == "E0003"
