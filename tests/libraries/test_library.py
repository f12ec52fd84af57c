"""A library is checked when it is written down, not when it is used."""

import pytest

from treadle.base.errors import LoweringError, OptionError
from treadle.expr.bounds import Facts
from treadle.expr.dtype import f32, f64, i32
from treadle.expr.scalar import Var, const
from treadle.ir.types import tensor as tensor_type
from treadle.libraries import Field, Library, Lowering, dims, is_op, tensor, wildcard
from treadle.libraries.library import Pointer, Scalar
from treadle.ops import LeakyRelu, Matmul, Relu

M, N, K = dims("m n k")
A, B, C = tensor(f32, M, K), tensor(f32, K, N), tensor(f32, M, N)
PRODUCT = is_op(Matmul, A, B)
GEMM = "int gemm(const float *a, const float *b, float *c, int32_t m, size_t n, int64_t k)"


def gemm(*arguments, **options):
    return Lowering(PRODUCT, C, options.pop("prototype", GEMM), arguments, **options)


def test_a_function_is_called_by_its_name_in_c_unless_another_is_given():
    assert gemm(A, B, C, M, N, K).label == "gemm"
    assert gemm(A, B, C, M, N, K, name="product").label == "product"


def test_operands_come_in_the_order_in_which_they_are_passed():
    swapped = "void gemm(float *c, const float *b, const float *a, int n)"
    assert gemm(C, B, A, 1, prototype=swapped).inputs == (B, A)


def test_a_python_function_gets_the_operands_of_the_pattern():
    def product(a, b, c): ...

    assert Lowering(PRODUCT, C, product).inputs == (A, B)
    assert Lowering(PRODUCT, C, product, (B, A, C)).inputs == (B, A)
    assert Lowering(PRODUCT, C, product).label == "product"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((A, B, C, M, N), "it takes 6 arguments, and 5 are given"),
        ((A, B, A, M, N, K), "no argument is the result"),
        ((A, B, M, C, N, K), "argument 2, a pointer to f32: pass an operand"),
        ((A, B, C, A, N, K), "argument 3, i32: pass a number"),
        ((A, wildcard(), C, M, N, K), "this operand is not in the pattern"),
        ((A, B, C, Var("rows"), N, K), "'rows' is no dimension"),
        ((A, B, C, 1 << 31, N, K), "is no i32"),
        ((A, B, C, 0.5, N, K), "is no i32"),
        ((A, B, C, M, -1, K), "-1 is no u64"),
        ((A, B, C, M, N, Field(is_op(Relu, A), "axis")), "not in the pattern"),
    ],
)
def test_arguments_that_do_not_fit_the_prototype_are_refused(arguments, why):
    with pytest.raises(OptionError, match="E0851") as caught:
        gemm(*arguments)
    assert why in str(caught.value)


def test_an_operand_without_a_type_is_not_passed():
    x = wildcard()
    with pytest.raises(OptionError, match="use tensor"):
        Lowering(is_op(Relu, x), C, "void f(const float *x, float *y)", (x, C))


def test_an_operand_of_another_element_type_is_not_passed():
    x, y = tensor(f64, N), tensor(f64, N)
    with pytest.raises(OptionError, match="the tensor holds f64"):
        Lowering(is_op(Relu, x), y, "void f(const float *x, float *y)", (x, y))


@pytest.mark.parametrize("arguments", [(A, 3, C), (C, A)])
def test_a_python_function_takes_arrays_with_the_result_last(arguments):
    with pytest.raises(OptionError, match="E0851"):
        Lowering(PRODUCT, C, lambda a, b, c: None, arguments, name="f")


@pytest.mark.parametrize(
    ("library", "function"), [("my-blas", "f"), ("blas", "<lambda>"), ("", "f")]
)
def test_names_are_names_of_python(library, function):
    with pytest.raises(OptionError, match="E0852"):
        Library(library, (gemm(A, B, C, M, N, K, name=function),))


def test_a_call_passes_pointers_and_numbers_in_the_order_of_the_prototype():
    rows = Var("rows")
    types = [tensor_type((rows, 8), f32), tensor_type((8, 4), f32)]
    result = [tensor_type((rows, 4), f32)]
    passed = gemm(A, B, C, M * 2, N, K).call(types, result, (), Facts.of((), {}))
    assert passed[:3] == (Pointer(0), Pointer(1), Pointer(2))
    assert [str(p.value) for p in passed[3:]] == ["rows * 2", "u64(4)", "8"]
    assert passed[3].dtype == i32


@pytest.mark.parametrize(
    ("operands", "results", "symbols"),
    [
        ([(5, 8)], [(5, 4)], ()),
        ([(5, 8), (7, 4)], [(5, 4)], ()),
        ([(5, 8), (8, 4)], [(4, 4)], ()),
        ([(5, 8), (8, 4)], [(5, 4), (5, 4)], ()),
        ([(5, 8), (8, 4)], [(5, 4)], (const(1),)),
        ([(2, 5, 8), (8, 4)], [(2, 5, 4)], ()),
    ],
)
def test_a_call_that_the_declaration_does_not_allow_is_refused(operands, results, symbols):
    types = [[tensor_type(d, f32) for d in shapes] for shapes in (operands, results)]
    with pytest.raises(LoweringError, match="E0431"):
        gemm(A, B, C, M, N, K).call(*types, symbols, Facts.of((), {}))


def test_a_call_with_other_elements_is_refused():
    types = [tensor_type((5, 8), f64), tensor_type((8, 4), f64)]
    with pytest.raises(LoweringError, match=r"operand 0 is Tensor\[\(5, 8\), f64\]"):
        gemm(A, B, C, M, N, K).call(types, [tensor_type((5, 4), f64)], (), Facts.of((), {}))


def test_an_attribute_is_passed_as_a_number_of_the_parameters_type():
    x, y = tensor(f32, N), tensor(f32, N)
    leaky = is_op(LeakyRelu, x)
    f = Lowering(
        leaky, y, "void f(const float *x, float *y, double s)", (x, y, Field(leaky, "slope"))
    )
    ((field, dtype),) = f.fields
    assert (field.name, dtype) == ("slope", f64)
    one = tensor_type((3,), f32)
    passed = f.call([one], [one], (const(0.5, f64),), Facts.of((), {}))
    assert passed[2] == Scalar(const(0.5, f64), f64)
