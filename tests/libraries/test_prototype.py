"""C prototypes are read as C means them, and what cannot be called is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.base.errors import OptionError
from treadle.expr.dtype import boolean, f16, f32, f64, i8, i16, i32, i64, u8, u32, u64
from treadle.libraries.prototype import Parameter, parse_prototype


def test_numbers_and_pointers_have_the_types_of_c_on_64_bit_linux():
    found = parse_prototype(
        "int f(const float *x, double *restrict y, int64_t n, size_t m, long long k, int, bool b,"
        " const void *p, unsigned char c, _Float16 h[])"
    )
    assert found.name == "f"
    assert found.returns == "status"
    assert found.parameters == (
        Parameter(f32, True),
        Parameter(f64, True),
        Parameter(i64, False),
        Parameter(u64, False),
        Parameter(i64, False),
        Parameter(i32, False),
        Parameter(boolean, False),
        Parameter(None, True),
        Parameter(u8, False),
        Parameter(f16, True),
    )


@pytest.mark.parametrize("text", ["void g(void)", " void  g ( ) ; ", "extern void g()"])
def test_a_function_may_take_and_return_nothing(text):
    found = parse_prototype(text)
    assert (found.name, found.parameters, found.returns) == ("g", (), "nothing")


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("unsigned int", u32),
        ("unsigned long int n", u64),
        ("long int", i64),
        ("short int n", i16),
        ("int", i32),
        ("unsigned n", u32),
    ],
)
def test_int_may_be_left_out_after_other_words(text, dtype):
    (parameter,) = parse_prototype(f"void f({text})").parameters
    assert parameter == Parameter(dtype, False)


def test_a_name_that_begins_like_a_type_is_a_name():
    assert parse_prototype("void f(int8_t interior, float floats)").parameters == (
        Parameter(i8, False),
        Parameter(f32, False),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f",
        "void f(",
        "void f(x)",
        "void f(real *x)",
        "void f(float **x)",
        "void f(int (*g)(int))",
        "void f(void, int n)",
        "void f(int n, ...)",
        "void f(_Float16 x)",
        "void f(int n) { }",
        "void f(int a,, int b)",
        "float f(int n)",
        "float *f(int n)",
        "void *f(int n)",
        "int64_t f(int n)",
    ],
)
def test_what_cannot_be_called_is_refused(text):
    with pytest.raises(OptionError) as caught:
        parse_prototype(text)
    assert caught.value.code == "E0850"


WORDS = ["int", "void", "float", "const", "f", "x", "*", "**", "(", ")", ",", ";", "[", "]", " "]


@given(st.lists(st.sampled_from([*WORDS, "f(", "int64_t", "3", "\n", "é", "..."]), max_size=14))
def test_any_text_is_read_or_refused(words):
    text = " ".join(words)
    with suppress(OptionError):
        found = parse_prototype(text)
        assert found.name.isidentifier()
        assert all(p.pointer or p.dtype is not None for p in found.parameters)
