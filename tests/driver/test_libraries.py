"""Programs with functions of libraries: a shared object built here by the system's C compiler, and
OpenBLAS.
"""

import shutil
import subprocess
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.base.errors import LoweringError, OptionError, RuntimeFault
from treadle.expr.dtype import boolean, f32, i8
from treadle.libraries import (
    GENERATED,
    Field,
    Library,
    Lowering,
    RecordedTimes,
    dims,
    is_op,
    leading,
    openblas,
    tensor,
)
from treadle.ops import Add, LeakyRelu, LogicalNot, Matmul, Neg, Relu
from treadle.testing import ir

SOURCE = r"""
#include <stdint.h>
#include <stdbool.h>

void linear_relu(const float *x, const float *w, const float *v, float *y,
                 int64_t m, int64_t k, int64_t n) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            float sum = v[j];
            for (int64_t r = 0; r < k; r++) sum += x[i * k + r] * w[r * n + j];
            y[i * n + j] = sum > 0 ? sum : 0;
        }
}

int at_most_four(const float *x, float *y, int64_t n) {
    if (n > 4) return -n;
    for (int64_t i = 0; i < n; i++) y[i] = -x[i];
    return 0;
}

int mixed(int8_t low, double factor, uint16_t high, const float *x, bool negate, float *y,
          uint8_t byte, int count, short little, float last) {
    if (low != -3 || high != 65535 || byte != 200 || little != -300) return 1;
    for (int i = 0; i < count; i++) y[i] = (negate ? -x[i] : x[i]) * (float)factor + last;
    return 0;
}

void narrow(const int8_t *x, int8_t *y, int8_t n) {
    for (int i = 0; i < n; i++) y[i] = -x[i];
}

void invert(const bool *x, bool *y, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) y[i] = !x[i];
}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A shared object with the functions above."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "mine.c").write_text(SOURCE)
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is part of the development environment"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", "libmine.so", "mine.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "libmine.so"


def elementwise(op, dtype, prototype, *arguments, **options):
    """A function of all elements of one operand: x, y and n stand for these in ``arguments``."""
    (n,) = dims("n")
    given = {"x": tensor(dtype, leading(n)), "y": tensor(dtype, leading(n)), "n": n}
    passed = tuple(given.get(a, a) if isinstance(a, str) else a for a in arguments)
    return Lowering(is_op(op, given["x"]), given["y"], prototype, passed, **options)


NEGATE = "int at_most_four(const float *x, float *y, int64_t n)"
LAYER = """
    @graph.function
    def main(x: Tensor[(b, 6), f32], w: Tensor[(6, 3), f32], v: Tensor[(3,), f32]):
        y = matmul(x, w)
        z = add(y, v)
        r = relu(z)
        s = neg(r)
        return s
"""


def linear(path):
    m, k, n = dims("m k n")
    x, w, v, y = tensor(f32, m, k), tensor(f32, k, n), tensor(f32, n), tensor(f32, m, n)
    prototype = (
        "void linear_relu(const float *x, const float *w, const float *v, float *y,"
        " int64_t m, int64_t k, int64_t n)"
    )
    pattern = is_op(Relu, is_op(Add, is_op(Matmul, x, w), v))
    return Library("mine", (Lowering(pattern, y, prototype, (x, w, v, y, m, k, n)),), path)


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


@pytest.fixture(scope="module")
def layers(path):
    """The layer with the library and without."""
    module = ir(LAYER)
    return (
        treadle.compile(module, threads=1, libraries=[linear(path)]),
        treadle.compile(module, threads=1),
    )


@pytest.mark.parametrize("rows", [0, 1, 5, 17])
def test_results_are_equal_with_and_without_the_library(layers, rows):
    inputs = arrays((rows, 6), (6, 3), (3,))
    with_library, without = layers
    np.testing.assert_allclose(with_library(*inputs), without(*inputs), rtol=1e-5, atol=1e-5)
    assert [c.chosen for c in with_library.library_choices] == ["mine.linear_relu"]
    assert without.library_choices == ()


def test_threads_may_call_it_at_the_same_time(layers):
    with_library, without = layers
    inputs = arrays((33, 6), (6, 3), (3,))
    expected = without(*inputs)
    results = []

    def call():
        for _ in range(20):
            results.append(np.allclose(with_library(*inputs), expected, rtol=1e-5, atol=1e-5))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [True] * 80


def test_an_error_code_is_a_fault_that_names_the_function_and_the_place(path):
    library = Library("mine", (elementwise(Neg, f32, NEGATE, "x", "y", "n"),), path)
    module = ir("""
        @graph.function
        def main(x: Tensor[(n, 2), f32]):
            y = exp(x)
            z = neg(y)
            return z
    """)
    exe = treadle.compile(module, threads=1, libraries=[library])
    (x,) = arrays((2, 2))
    np.testing.assert_allclose(exe(x), -np.exp(x), rtol=1e-6)
    with pytest.raises(RuntimeFault, match=r"'mine.at_most_four' returned the error code -6") as e:
        exe(np.zeros((3, 2), np.float32))
    assert e.value.code == "E0742"
    assert e.value.place == "<text>:5:5"
    np.testing.assert_allclose(exe(x), -np.exp(x), rtol=1e-6)


def test_numbers_of_every_size_arrive(path):
    (n,) = dims("n")
    x, y = tensor(f32, n), tensor(f32, n)
    leaky = is_op(LeakyRelu, x)
    prototype = (
        "int mixed(int8_t low, double factor, uint16_t high, const float *x, bool negate, float *y,"
        " uint8_t byte, int count, short little, float last)"
    )
    passed = (-3, Field(leaky, "slope"), 65535, x, True, y, 200, n, -300, 0.25)
    library = Library("mine", (Lowering(leaky, y, prototype, passed),), path)
    module = ir("""
        @graph.function
        def main(x: Tensor[(n,), f32]):
            y = leaky_relu(x, slope=0.1)
            return y
    """)
    exe = treadle.compile(module, threads=1, libraries=[library])
    (x,) = arrays((7,))
    np.testing.assert_allclose(exe(x), -x * np.float32(0.1) + 0.25, rtol=1e-6, atol=1e-6)


def test_a_size_that_does_not_fit_its_parameter_stops_the_program(path):
    narrow = "void narrow(const int8_t *x, int8_t *y, int8_t n)"
    library = Library("mine", (elementwise(Neg, i8, narrow, "x", "y", "n"),), path)
    module = ir("""
        @graph.function
        def main(x: Tensor[(n, 2), i8]):
            y = neg(x)
            return y
    """)
    exe = treadle.compile(module, threads=1, libraries=[library])
    x = np.arange(126, dtype=np.int8).reshape(63, 2)
    np.testing.assert_array_equal(exe(x), -x)
    with pytest.raises(RuntimeFault, match=r"does not fit a parameter of 'mine.narrow'"):
        exe(np.zeros((64, 2), np.int8))


def test_truth_values_are_bytes(path):
    invert = "void invert(const bool *x, bool *y, uint64_t n)"
    library = Library("mine", (elementwise(LogicalNot, boolean, invert, "x", "y", "n"),), path)
    module = ir("""
        @graph.function
        def main(x: Tensor[(n,), bool]):
            y = logical_not(x)
            return y
    """)
    exe = treadle.compile(module, threads=1, libraries=[library])
    np.testing.assert_array_equal(exe(np.array([True, False, True])), [False, True, False])


def test_a_library_runs_inside_of_branches_and_loops(path):
    library = Library("mine", (elementwise(Neg, f32, NEGATE, "x", "y", "n"),), path)
    module = ir("""
        @graph.function
        def less(i: Tensor[(), i64], x: Tensor[(n,), f32]):
            c = less(i, i64(3))
            return c

        @graph.function
        def turn(i: Tensor[(), i64], x: Tensor[(n,), f32]):
            j = add(i, i64(1))
            y = neg(x)
            return j, y

        @graph.function
        def main(x: Tensor[(n,), f32], i: Tensor[(), i64]):
            k, y = while_loop(
                i, x, condition=less, body=turn, carried=2,
                out=(Tensor[(), i64], Tensor[(n,), f32]),
            )
            return y
    """)
    exe = treadle.compile(module, threads=1, libraries=[library])
    assert [c.chosen for c in exe.library_choices] == ["mine.at_most_four"]
    (x,) = arrays((3,))
    np.testing.assert_array_equal(exe(x, np.int64(0)), -x)
    np.testing.assert_array_equal(exe(x, np.int64(1)), x)
    with pytest.raises(RuntimeFault, match="E0742"):
        exe(np.zeros(5, np.float32), np.int64(0))


def test_a_python_function_fills_the_result():
    (n,) = dims("n")
    x, y = tensor(f32, leading(n)), tensor(f32, leading(n))

    def positive(x, y):
        np.maximum(x, 0, out=y)

    library = Library("mine", (Lowering(is_op(Relu, x), y, positive),))
    exe = treadle.compile(ir(LAYER), threads=1, libraries=[library])
    inputs = arrays((4, 6), (6, 3), (3,))
    x, w, v = inputs
    np.testing.assert_allclose(exe(*inputs), -np.maximum(x @ w + v, 0), rtol=1e-5, atol=1e-5)


def test_functions_by_name_stand_beside_libraries():
    module = ir("""
        @graph.function
        def main(x: Tensor[(n,), f32]):
            y = call_library(twice, x, out=(Tensor[(n,), f32],))
            z = relu(y)
            return z
    """)
    (n,) = dims("n")
    x, y = tensor(f32, n), tensor(f32, n)

    def positive(x, y):
        np.maximum(x, 0, out=y)

    library = Library("mine", (Lowering(is_op(Relu, x), y, positive),))
    exe = treadle.compile(module, threads=1, libraries=[library, {"twice": lambda x: x * 2}])
    np.testing.assert_array_equal(exe(np.array([1, -1], np.float32)), [2, 0])


def test_a_program_may_call_a_function_of_c_by_itself(path):
    library = Library("mine", (elementwise(Neg, f32, NEGATE, "x", "y", "n"),), path)
    text = """
        @graph.function
        def main(x: Tensor[(n,), f32]):
            y = call_library(mine.at_most_four, x, out=(Tensor[{}, f32],))
            return y
    """
    exe = treadle.compile(ir(text.format("(n,)")), threads=1, libraries=[library])
    np.testing.assert_array_equal(exe(np.ones(3, np.float32)), [-1, -1, -1])
    with pytest.raises(LoweringError, match="E0431"):
        treadle.compile(ir(text.format("(n + 1,)")), threads=1, libraries=[library])


def test_the_profile_times_the_function_beside_the_kernels(path):
    exe = treadle.compile(ir(LAYER), threads=1, libraries=[linear(path)])
    profile = exe.profile(*arrays((8, 6), (6, 3), (3,)), runs=2)
    rows = {row.label: row for row in profile.rows}
    assert set(rows) == {"mine.linear_relu", "s"}
    assert rows["mine.linear_relu"].seconds > 0
    assert rows["mine.linear_relu"].bytes == 4 * (8 * 6 + 6 * 3 + 3 + 8 * 3)


# ---- Which is used


def test_measurements_decide(path):
    module, library = ir(LAYER), linear(path)
    first = treadle.compile(module, threads=1, libraries=[library])
    keys = first.library_choices[0].keys
    assert [k.implementation for k in keys] == [GENERATED, "mine.linear_relu"]
    slow = RecordedTimes(dict(zip(keys, (1.0, 2.0), strict=True)))
    exe = treadle.compile(module, threads=1, libraries=[library], measurements=slow)
    assert exe.library_choices[0].chosen == GENERATED
    assert "call_library" not in str(exe.module)


def test_a_part_is_a_program_that_can_be_measured(path):
    exe = treadle.compile(ir(LAYER), threads=1, libraries=[linear(path)])
    part = ir(exe.library_choices[0].keys[0].part)
    generated = treadle.compile(part, threads=1)
    library = treadle.compile(part, threads=1, libraries=[linear(path)])
    assert [c.keys for c in library.library_choices] == [c.keys for c in exe.library_choices]
    inputs = arrays((4, 6), (6, 3), (3,))
    np.testing.assert_allclose(library(*inputs), generated(*inputs), rtol=1e-5, atol=1e-5)


def test_a_donated_operand_is_not_overwritten_while_it_is_read(path):
    module = ir("""
        @graph.function
        def main(x: Tensor[(n, 6), f32], w: Tensor[(6, 6), f32], v: Tensor[(6,), f32]):
            y = matmul(x, w)
            z = add(y, v)
            r = relu(z)
            return r
    """)
    inputs = arrays((4, 6), (6, 6), (6,))
    expected = treadle.compile(module, threads=1)(*inputs)
    exe = treadle.compile(module, threads=1, libraries=[linear(path)], donate={"x": "r"})
    found = exe(*inputs)
    assert found is inputs[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_strict_programs_call_no_library_that_changes_sums(path):
    exe = treadle.compile(ir(LAYER), threads=1, numerics="strict", libraries=[linear(path)])
    assert [c.chosen for c in exe.library_choices] == [GENERATED]


# ---- Artifacts


def test_an_artifact_names_its_library_and_is_loaded_with_it(path, tmp_path):
    exe = treadle.compile(ir(LAYER), threads=1, libraries=[linear(path)])
    exe.save(tmp_path / "model.treadle")
    with pytest.raises(RuntimeFault, match="'linear_relu' of the library 'mine', which is missing"):
        treadle.load(tmp_path / "model.treadle", threads=1)
    loaded = treadle.load(tmp_path / "model.treadle", threads=1, libraries=[linear(path)])
    inputs = arrays((4, 6), (6, 3), (3,))
    np.testing.assert_array_equal(loaded(*inputs), exe(*inputs))
    assert [c.chosen for c in loaded.library_choices] == ["mine.linear_relu"]
    assert loaded.entry.callbacks == ("mine.linear_relu",)


def test_a_library_without_the_function_is_named(path, tmp_path):
    exe = treadle.compile(ir(LAYER), threads=1, libraries=[linear(path)])
    exe.save(tmp_path / "model.treadle")
    other = Library("mine", (elementwise(Neg, f32, NEGATE, "x", "y", "n"),), path)
    with pytest.raises(RuntimeFault, match="the libraries that were given: mine"):
        treadle.load(tmp_path / "model.treadle", threads=1, libraries=[other])


# ---- What cannot be opened


def test_a_file_that_is_no_library_is_refused(tmp_path):
    (tmp_path / "libmine.so").write_bytes(b"not a shared object")
    with pytest.raises(RuntimeFault, match="E0727"):
        treadle.compile(ir(LAYER), libraries=[linear(tmp_path / "libmine.so")])


def test_a_function_that_the_file_lacks_is_refused(path):
    lowering = elementwise(Neg, f32, "void missing(const float *x, float *y)", "x", "y")
    with pytest.raises(RuntimeFault, match="no function 'missing'"):
        treadle.compile(ir(LAYER), libraries=[Library("mine", (lowering,), path)])


def test_two_libraries_of_one_name_are_refused(path):
    with pytest.raises(OptionError, match="E0852"):
        treadle.compile(ir(LAYER), libraries=[linear(path), linear(path)])


# ---- OpenBLAS


@pytest.fixture(scope="module")
def products():
    """Products by OpenBLAS and by generated code, for any sizes."""
    module = ir("""
        @graph.function
        def main(x: Tensor[(b, m, k), f32], w: Tensor[(k, n), f32], v: Tensor[(j, n), f32]):
            y = matmul(x, w)
            z = sin(y)
            t = permute(v, axes=(1, 0))
            q = matmul(z, t)
            return q, y
    """)
    library = openblas(threads=1)
    return (
        treadle.compile(module, threads=1, libraries=[library]),
        treadle.compile(module, threads=1),
    )


@settings(max_examples=40, deadline=None)
@given(sizes=st.tuples(*[st.integers(0, 9)] * 5))
def test_openblas_and_generated_code_agree_for_all_sizes(products, sizes):
    b, m, k, n, j = sizes
    inputs = arrays((b, m, k), (k, n), (j, n))
    chosen = [c.chosen for c in products[0].library_choices]
    assert chosen == ["openblas.sgemm", "openblas.sgemm_nt"]
    for found, expected in zip(*(p(*inputs) for p in products), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_openblas_multiplies_doubles():
    module = ir("""
        @graph.function
        def main(x: Tensor[(m, 5), f64], w: Tensor[(5, 4), f64]):
            y = matmul(x, w)
            return y
    """)
    exe = treadle.compile(module, threads=1, libraries=[openblas()])
    assert [c.chosen for c in exe.library_choices] == ["openblas.dgemm"]
    x, w = (a.astype(np.float64) for a in arrays((3, 5), (5, 4)))
    np.testing.assert_allclose(exe(x, w), x @ w, rtol=1e-12)


@pytest.mark.parametrize(
    "product",
    ["matmul(x, w)", "matmul(w, x)"],
    ids=["a batch of matrices on the right", "integers"],
)
def test_other_products_are_generated(product):
    types = ("Tensor[(2, 3, 3), f32]", "Tensor[(2, 3, 3), f32]")
    if "w, x" in product:
        types = ("Tensor[(3, 3), i32]", "Tensor[(3, 3), i32]")
    module = ir(f"""
        @graph.function
        def main(x: {types[0]}, w: {types[1]}):
            y = {product}
            return y
    """)
    assert treadle.compile(module, threads=1, libraries=[openblas()]).library_choices == ()


def test_openblas_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("treadle.libraries.blas._PACKAGE", "no_such_package")
    with pytest.raises(OptionError, match="pip install scipy-openblas64"):
        openblas()
