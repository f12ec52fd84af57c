import copy
import pickle

import pytest

from treadle_runtime import errors
from treadle_runtime.errors import InternalError, RuntimeFault, ScheduleError, TreadleError

ROOMS = {
    "ParseError": "00",
    "TypeMismatch": "01",
    "VerifyError": "02",
    "ScheduleError": "03",
    "LoweringError": "04",
    "CodegenError": "05",
    "ModelImportError": "06",
    "RuntimeFault": "07",
    "OptionError": "08",
}


def full_error():
    return ScheduleError(
        "E0301",
        "split: cannot show that 4 divides the extent of 'i'",
        place="axpy.py:3:5",
        excerpt=("    for i in range(n):", "    ^^^^^^^^^^^^^^^^^^"),
        notes=("the extent is n",),
        help='use split(..., tail="guard"), or assume(n % 4 == 0)',
    )


def test_full_message_renders_place_excerpt_notes_and_help():
    assert str(full_error()) == (
        "E0301: split: cannot show that 4 divides the extent of 'i'\n"
        "  --> axpy.py:3:5\n"
        "   |     for i in range(n):\n"
        "   |     ^^^^^^^^^^^^^^^^^^\n"
        "   = note: the extent is n\n"
        '   = help: use split(..., tail="guard"), or assume(n % 4 == 0)'
    )


def test_bare_message_is_one_line():
    assert str(RuntimeFault("E0701", "no such file")) == "E0701: no such file"


@pytest.mark.parametrize(("name", "room"), ROOMS.items())
def test_each_room_has_its_class_and_refuses_other_codes(name, room):
    cls = getattr(errors, name)
    assert cls(f"E{room}42", "m").code == f"E{room}42"
    with pytest.raises(InternalError, match=name):
        cls("E9901", "m")


@pytest.mark.parametrize("code", ["", "E1", "0701", "E07011", "e0701", "E070x"])
def test_malformed_code_is_our_bug(code):
    with pytest.raises(InternalError):
        TreadleError(code, "m")


def test_errors_cross_process_boundaries():
    before = full_error()
    for after in (pickle.loads(pickle.dumps(before)), copy.copy(before)):
        assert type(after) is ScheduleError
        assert str(after) == str(before)
        assert after.__dict__ == before.__dict__


def test_subclass_with_its_own_constructor_is_still_picklable():
    after = pickle.loads(pickle.dumps(Special(7)))
    assert isinstance(after, Special)
    assert (after.extra, after.code) == (7, "E0755")


class Special(RuntimeFault):
    def __init__(self, extra):
        super().__init__("E0755", "special")
        self.extra = extra


def test_internal_error_asks_for_a_report_and_survives_pickling():
    before = InternalError("impossible", dump="/tmp/d.py")
    after = pickle.loads(pickle.dumps(before))
    assert "report" in str(after)
    assert "/tmp/d.py" in str(after)
    assert str(before) == str(after)
