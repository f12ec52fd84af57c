import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from treadle_runtime.errors import InternalError, OptionError, RuntimeFault
from treadle_runtime.executable import Executable, exports_of
from treadle_runtime.library import Callback
from treadle_runtime.loader import load_text
from treadle_runtime.manifest import Check, Entry, TensorSpec

# mixed: out[m, 3] = first constant + s for s of rank 0; all checks of an entry with fixed and
# derived dimensions. x: [m, 3], y: [2*m], s: []; m % 4 == 0 is a constraint on the inputs together.
MIXED_TEXT = """
define i32 @mixed.shapes(ptr %dims, ptr %symbols, ptr %out, ptr %arena) {
  %m = load i64, ptr %dims
  %d1 = getelementptr i64, ptr %dims, i64 1
  %three = load i64, ptr %d1
  %ok0 = icmp eq i64 %three, 3
  br i1 %ok0, label %c1, label %bad0
bad0:
  ret i32 1
c1:
  %d2 = getelementptr i64, ptr %dims, i64 2
  %m2 = load i64, ptr %d2
  %twice = mul i64 %m, 2
  %ok1 = icmp eq i64 %m2, %twice
  br i1 %ok1, label %c2, label %bad1
bad1:
  ret i32 2
c2:
  %rest = urem i64 %m, 4
  %ok2 = icmp eq i64 %rest, 0
  br i1 %ok2, label %good, label %bad2
bad2:
  ret i32 3
good:
  store i64 %m, ptr %symbols
  store i64 %m, ptr %out
  %o1 = getelementptr i64, ptr %out, i64 1
  store i64 3, ptr %o1
  store i64 0, ptr %arena
  ret i32 0
}
define i32 @mixed.run(ptr %block) {
entry:
  %constants.p = getelementptr i64, ptr %block, i64 2
  %constants = load ptr, ptr %constants.p
  %first = load ptr, ptr %constants
  %c = load float, ptr %first
  %symbols.p = getelementptr i64, ptr %block, i64 3
  %symbols = load ptr, ptr %symbols.p
  %m = load i64, ptr %symbols
  %n = mul i64 %m, 3
  %s.p = getelementptr i64, ptr %block, i64 7
  %s = load ptr, ptr %s.p
  %v = load float, ptr %s
  %negative = fcmp olt float %v, 0.0
  br i1 %negative, label %refuse, label %start
refuse:
  ret i32 4
start:
  %out.p = getelementptr i64, ptr %block, i64 8
  %out = load ptr, ptr %out.p
  %sum = fadd float %v, %c
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %exit
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
  %o = getelementptr float, ptr %out, i64 %i
  store float %sum, ptr %o
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret i32 0
}
"""
MIXED = Entry(
    name="mixed",
    inputs=(
        TensorSpec("x", "f32", ("m", 3)),
        TensorSpec("y", "i8", ("2*m",)),
        TensorSpec("s", "f32", ()),
    ),
    outputs=(TensorSpec("out", "f32", ("m", 3)),),
    symbols=("m",),
    checks=(
        Check("x.shape[1] == 3", 0, 1),
        Check("y.shape[0] == 2*m", 1, 0),
        Check("m % 4 == 0"),
        Check("s is negative"),
    ),
    constants=("bias",),
)
BIAS = np.array([10.0], np.float32)

# copy: out = x, two bytes an element, so that bf16 can be tried; returns its input twice.
COPY_TEXT = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
define i32 @copy.shapes(ptr %dims, ptr %symbols, ptr %out, ptr %arena) {
  %n = load i64, ptr %dims
  store i64 %n, ptr %symbols
  store i64 %n, ptr %out
  %o1 = getelementptr i64, ptr %out, i64 1
  store i64 %n, ptr %o1
  store i64 0, ptr %arena
  ret i32 0
}
define i32 @copy.run(ptr %block) {
  %symbols.p = getelementptr i64, ptr %block, i64 3
  %symbols = load ptr, ptr %symbols.p
  %n = load i64, ptr %symbols
  %bytes = mul i64 %n, 2
  %x.p = getelementptr i64, ptr %block, i64 5
  %x = load ptr, ptr %x.p
  %a.p = getelementptr i64, ptr %block, i64 6
  %a = load ptr, ptr %a.p
  %b.p = getelementptr i64, ptr %block, i64 7
  %b = load ptr, ptr %b.p
  call void @llvm.memcpy.p0.p0.i64(ptr %a, ptr %x, i64 %bytes, i1 false)
  call void @llvm.memcpy.p0.p0.i64(ptr %b, ptr %x, i64 %bytes, i1 false)
  ret i32 0
}
"""


@pytest.fixture(scope="module")
def mixed():
    return Executable(MIXED, load_text(MIXED_TEXT, exports_of(MIXED)), {"bias": BIAS})


@pytest.fixture(scope="module")
def copy():
    spec = TensorSpec("x", "bf16", ("n",))
    entry = Entry("copy", (spec,), (spec, spec), symbols=("n",))
    return Executable(entry, load_text(COPY_TEXT, exports_of(entry)))


def mixed_inputs(m=4, columns=3, y=None, s=1.0):
    return np.zeros((m, columns), np.float32), np.zeros(2 * m if y is None else y, np.int8), s


def fault_of(call, *inputs, **named):
    with pytest.raises(RuntimeFault) as caught:
        call(*inputs, **named)
    return str(caught.value)


@pytest.mark.parametrize("n", [0, 1, 3, 64, 1000])
def test_numpy_in_numpy_out_and_aligned(axpy, vectors, n):
    x, y = vectors(n)
    out = axpy(x, y)
    assert isinstance(out, np.ndarray)
    assert out.ctypes.data % 64 == 0
    np.testing.assert_array_equal(out, 2 * x + y)


@pytest.mark.parametrize("n", [0, 1, 3, 64, 1000])
def test_torch_in_torch_out(axpy, vectors, n):
    x, y = map(torch.from_numpy, vectors(n))
    out = axpy(x, y)
    assert type(out) is torch.Tensor
    assert torch.equal(out, 2 * x + y)


def test_one_torch_input_makes_torch_outputs(axpy, vectors):
    x, y = vectors(5)
    for inputs in ((torch.from_numpy(x), y), (x, torch.from_numpy(y))):
        assert torch.equal(axpy(*inputs), torch.from_numpy(2 * x + y))


def test_parameters_and_tensors_that_require_gradients_are_taken(axpy):
    x = torch.nn.Parameter(torch.arange(4.0))
    y = torch.ones(4, requires_grad=True)
    assert axpy(x, y).tolist() == [1.0, 3.0, 5.0, 7.0]


def test_strided_readonly_and_unaligned_inputs_give_the_same(axpy, vectors):
    x, y = vectors(40)
    expected = 2 * x[::2] + y[:20]
    readonly = y[:20].copy()
    readonly.flags.writeable = False
    odd = np.frombuffer(b"." + y[:20].tobytes(), np.float32, offset=1)
    for other in (y[:20], readonly, odd):
        np.testing.assert_array_equal(axpy(x[::2], other), expected)
    strided = torch.from_numpy(x)[::2]
    assert torch.equal(axpy(strided, torch.from_numpy(y)[:20]), torch.from_numpy(expected))


def test_lazily_negated_tensors_are_resolved(axpy):
    negated = torch.ones(3, dtype=torch.complex64).mul(1j).conj().imag
    assert negated.is_neg()
    assert axpy(negated, torch.zeros(3)).tolist() == [-2.0] * 3


def test_dlpack_objects_are_shared(axpy, vectors):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    x, y = vectors(6)
    np.testing.assert_array_equal(axpy(Foreign(x), Foreign(y)), 2 * x + y)


def test_inputs_by_name(axpy, vectors):
    x, y = vectors(6)
    for out in (axpy(x=x, y=y), axpy(y=y, x=x), axpy(x, y=y)):
        np.testing.assert_array_equal(out, 2 * x + y)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "input 'x' is missing"),
        (("x",), "input 'y' is missing"),
        (("x", "y", "z"), "input 'z' is given but unknown"),
    ],
)
def test_wrong_names_are_told(axpy, names, why):
    message = fault_of(axpy, **dict.fromkeys(names, np.zeros(1, np.float32)))
    assert message == (
        f"E0701: 'axpy' takes 2 inputs: {why}\n"
        "   = note: axpy(x: Tensor[(n,), f32], y: Tensor[(n,), f32]) -> Tensor[(n,), f32]\n"
        "   = help: pass x, y"
    )


def test_too_many_and_twice_given_inputs_are_told(axpy):
    x = np.zeros(1, np.float32)
    assert "3 inputs are given" in fault_of(axpy, x, x, x)
    assert "'x' is given twice" in fault_of(axpy, x, x, x=x)


def test_dtype_mismatch_names_input_dtypes_and_cure(axpy):
    x = np.zeros(3, np.float32)
    assert fault_of(axpy, x, x.astype(np.float64)) == (
        "E0703: input 'y': expected dtype f32, got f64\n"
        '   = help: convert it first: y.astype("float32")'
    )
    assert fault_of(axpy, torch.zeros(3, dtype=torch.bfloat16), x) == (
        "E0703: input 'x': expected dtype f32, got bf16\n"
        "   = help: convert it first: x.to(torch.float32)"
    )
    assert "foreign byte order" in fault_of(axpy, x, x.astype(">f4"))
    assert "complex64" in fault_of(axpy, x, x.astype(np.complex64))


@pytest.mark.parametrize("value", [[1.0, 2.0], (1.0,), 3.0])
def test_lists_and_numbers_for_tensors_are_refused_with_the_cure(axpy, value):
    message = fault_of(axpy, np.zeros(1, np.float32), value)
    assert f"E0702: input 'y' is a {type(value).__name__}" in message
    assert 'pass numpy.asarray(y, dtype="float32")' in message


@pytest.mark.parametrize("value", [None, "x", object(), {}])
def test_what_is_no_tensor_is_refused(axpy, value):
    assert "__dlpack__" in fault_of(axpy, np.zeros(1, np.float32), value)


def test_other_devices_and_layouts_are_refused(axpy):
    x = torch.zeros(3)
    assert "x.cpu()" in fault_of(axpy, torch.zeros(3, device="meta"), x)
    assert "to_dense" in fault_of(axpy, x, x.to_sparse())


def test_tensors_without_memory_are_refused(axpy):
    x = torch.zeros(2, 3)
    with pytest.raises(RuntimeFault, match="E0702: input 'x' is a tensor without data"):
        torch.vmap(axpy)(x, x)
    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.zeros(3))
    with pytest.raises(RuntimeFault, match="E0702: input 'x' is a tensor without data"):
        axpy(fake, torch.zeros(3))


def test_wrong_rank_is_told(axpy):
    x = np.zeros((2, 2), np.float32)
    assert fault_of(axpy, x, x) == (
        "E0704: input 'x': expected 1 dimensions, got 2\n"
        "   = note: 'x' is Tensor[(n,), f32], and the shape given is (2, 2)\n"
        "   = help: reshape 'x' to (n,)"
    )


def test_wrong_fixed_dimension_is_told(mixed):
    assert fault_of(mixed, *mixed_inputs(columns=5)) == (
        "E0705: input 'x', axis 1: expected 3, got 5\n"
        "   = note: 'x' is Tensor[(m, 3), f32], and the shape given is (4, 5)\n"
        "   = help: pass 'x' of shape (m, 3), or compile with a symbolic axis"
    )


def test_violated_dimension_is_told_with_the_values_of_its_symbols(mixed):
    assert fault_of(mixed, *mixed_inputs(y=7)) == (
        "E0706: input 'y', axis 0: expected 2*m = 8, got 7\n"
        "   = note: 'y' is Tensor[(2*m,), i8], and the shape given is (7,)\n"
        "   = note: m = 4, from input 'x', axis 0\n"
        "   = help: pass 'y' of shape (2*m,)"
    )


def test_violated_constraint_is_told(mixed):
    message = fault_of(mixed, *mixed_inputs(m=6))
    assert "E0706: the inputs of 'mixed' break the constraint m % 4 == 0" in message
    assert "m = 6, from input 'x', axis 0" in message


def test_failed_check_while_running_is_told(mixed):
    assert "E0707: 'mixed' stopped: s is negative" in fault_of(mixed, *mixed_inputs(s=-1.0))


@pytest.mark.parametrize("m", [0, 4])
@pytest.mark.parametrize("s", [2, 2.0, np.float32(2), np.array(2, np.float32), torch.tensor(2.0)])
def test_rank_zero_and_empty_inputs_work(mixed, m, s):
    out = np.asarray(mixed(*mixed_inputs(m=m, s=s)))
    assert out.shape == (m, 3)
    assert (out == 12).all()


def test_constants_are_aligned_and_kept_alive():
    raw = np.zeros(65, np.uint8)
    odd = raw[1:5].view(np.float32)
    odd[0] = 10
    program = Executable(MIXED, load_text(MIXED_TEXT, exports_of(MIXED)), {"bias": odd})
    del odd, raw
    assert (program(*mixed_inputs()) == 11).all()


def test_missing_constants_are_named():
    with pytest.raises(RuntimeFault, match="E0723: the constant 'bias' is missing"):
        Executable(MIXED, load_text(MIXED_TEXT, exports_of(MIXED)))


def test_bf16_of_both_libraries_and_several_outputs(copy):
    x = np.arange(5).astype(ml_dtypes.bfloat16)
    a, b = copy(x)
    assert a.dtype == b.dtype == x.dtype
    np.testing.assert_array_equal(a, x)
    t = torch.arange(5, dtype=torch.bfloat16)
    a, b = copy(t)
    assert torch.equal(a, t)
    assert torch.equal(b, t)


@pytest.mark.parametrize("name", ["axpy", "axpy_pooled"])
def test_eight_threads_may_call_one_executable(request, vectors, name):
    program = request.getfixturevalue(name)
    wrong = []

    def caller(seed):
        x, y = vectors(100 + 37 * seed, seed)
        expected = 2 * x + y
        wrong.extend(seed for _ in range(200) if not np.array_equal(program(x, y), expected))

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_closed_pool_leaves_the_program_serial(axpy_pooled, vectors):
    x, y = vectors(100)
    axpy_pooled(x, y)
    axpy_pooled.pool.close()
    np.testing.assert_array_equal(axpy_pooled(x, y), 2 * x + y)


def test_signature_reads_like_the_text(mixed):
    assert mixed.signature == (
        "mixed(x: Tensor[(m, 3), f32], y: Tensor[(2*m,), i8], s: Tensor[(), f32])"
        " -> Tensor[(m, 3), f32]"
    )
    assert repr(mixed) == f"<Executable {mixed.signature}>"


def test_memory_counts_weights_arena_and_tensors(axpy, mixed, vectors):
    use = axpy.memory(n=100)
    assert (use.weights, use.arena, use.peak) == (0, 400, 1600)
    axpy(*vectors(10))
    assert axpy.memory().peak == 160
    assert mixed.memory(m=4).peak == 4 + 48 + 8 + 4 + 48
    assert use.process > 1_000_000
    assert "arena" in str(use)


@pytest.mark.parametrize("symbols", [{}, {"n": -1}, {"n": 1.5}, {"m": 1}, {"n": 1, "m": 1}])
def test_memory_refuses_missing_and_unknown_symbols(axpy, symbols):
    with pytest.raises(OptionError, match=r"E0802[\s\S]*memory\(n=64\)"):
        axpy.memory(**symbols)


def test_profile_has_a_row_per_kernel_and_writes_a_trace(axpy, vectors, tmp_path):
    profile = axpy.profile(*vectors(500), runs=3, trace=tmp_path / "trace.json")
    assert [row.label for row in profile.rows] == ["add", "double"]
    assert profile.rows[0].share == 0.75
    assert profile.rows[0].gflops == pytest.approx(500 / 3000)
    assert profile.rows[1].bandwidth == pytest.approx(4000 / 1000)
    assert "n = 500" in str(profile)
    assert (tmp_path / "trace.json").exists()


@pytest.mark.parametrize("runs", [0, -1, 1.5, True])
def test_profile_refuses_impossible_runs(axpy, vectors, runs):
    with pytest.raises(OptionError, match="E0803"):
        axpy.profile(*vectors(5), runs=runs)


CALL_TEXT = """
@failing = internal constant i64 0
define i32 @call.shapes(ptr %dims, ptr %symbols, ptr %out, ptr %arena) {
  %n = load i64, ptr %dims
  store i64 %n, ptr %symbols
  store i64 %n, ptr %out
  store i64 0, ptr %arena
  ret i32 0
}
define i32 @call.run(ptr %block) {
  %words = alloca [10 x i64]
  %constants.p = getelementptr i64, ptr %block, i64 2
  %constants = load ptr, ptr %constants.p
  %callback = load ptr, ptr %constants
  %symbols.p = getelementptr i64, ptr %block, i64 3
  %symbols = load ptr, ptr %symbols.p
  %n = load i64, ptr %symbols
  %x.p = getelementptr i64, ptr %block, i64 5
  %x = load i64, ptr %x.p
  %out.p = getelementptr i64, ptr %block, i64 6
  %out = load i64, ptr %out.p
  store i64 1, ptr %words
  %w1 = getelementptr i64, ptr %words, i64 1
  store i64 1, ptr %w1
  %w2 = getelementptr i64, ptr %words, i64 2
  store i64 %x, ptr %w2
  %w3 = getelementptr i64, ptr %words, i64 3
  store i64 2, ptr %w3
  %w4 = getelementptr i64, ptr %words, i64 4
  store i64 1, ptr %w4
  %w5 = getelementptr i64, ptr %words, i64 5
  store i64 %n, ptr %w5
  %w6 = getelementptr i64, ptr %words, i64 6
  store i64 %out, ptr %w6
  %w7 = getelementptr i64, ptr %words, i64 7
  store i64 2, ptr %w7
  %w8 = getelementptr i64, ptr %words, i64 8
  store i64 1, ptr %w8
  %w9 = getelementptr i64, ptr %words, i64 9
  store i64 %n, ptr %w9
  %status = call i32 %callback(ptr %words)
  ret i32 %status
}
"""


def calling(function, **options):
    spec = TensorSpec("x", "f32", ("n",))
    entry = Entry("call", (spec,), (spec,), symbols=("n",), callbacks=("f",))
    code = load_text(CALL_TEXT, exports_of(entry))
    return Executable(entry, code, callbacks={"f": Callback("f", function, **options)})


@pytest.mark.parametrize("n", [0, 5])
def test_library_functions_return_or_write_their_results(n):
    def negate_into(x, out):
        np.negative(x, out=out)

    x = np.arange(n, dtype=np.float32)
    for program in (calling(np.negative), calling(negate_into, destination=True)):
        np.testing.assert_array_equal(program(x), -x)


def test_what_a_library_function_raises_comes_through():
    def fail(x):
        raise LookupError(f"no such thing in {x.tolist()}")

    program = calling(fail)
    for _ in range(2):
        with pytest.raises(LookupError, match="no such thing in"):
            program(np.ones(2, np.float32))


def test_what_library_functions_raise_goes_to_the_right_thread():
    def fail(x):
        raise KeyError(int(x[0]))

    program = calling(fail)
    caught = {}

    def caller(number):
        for _ in range(50):
            try:
                program(np.full(1, number, np.float32))
            except KeyError as error:
                caught.setdefault(number, set()).add(error.args[0])

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == {number: {number} for number in range(8)}


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x[:1], "expected float32 of shape (3,), got float32 of shape (1,)"),
        (lambda x: x.astype(np.float64), "got float64"),
        (lambda x: (x, x), "returned 2 arrays where 1 were expected"),
        (lambda x: None, "got object"),
    ],
)
def test_wrong_results_of_library_functions_are_told(function, why):
    message = fault_of(calling(function), np.ones(3, np.float32))
    assert "E0741: library function 'f'" in message
    assert why in message


def test_inputs_of_library_functions_are_read_only():
    def spoil(x):
        x[0] = 7

    with pytest.raises(ValueError, match="read-only"):
        calling(spoil)(np.ones(3, np.float32))


def test_a_destination_function_that_returns_something_is_told():
    program = calling(lambda x, out: x, destination=True)
    assert "writes to its destination" in fault_of(program, np.ones(3, np.float32))


def test_an_unknown_status_is_our_bug():
    text = CALL_TEXT.replace("ret i32 %status", "ret i32 99")
    spec = TensorSpec("x", "f32", ("n",))
    entry = Entry("call", (spec,), (spec,), symbols=("n",), callbacks=("f",))
    callbacks = {"f": Callback("f", np.negative)}
    program = Executable(entry, load_text(text, exports_of(entry)), callbacks=callbacks)
    with pytest.raises(InternalError, match="status 99"):
        program(np.ones(3, np.float32))


def test_the_run_time_never_loads_pytorch_onnx_or_the_compiler():
    text = (
        "import sys, treadle_runtime\n"
        "print([m for m in ('torch', 'onnx', 'treadle') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], timeout=60, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("outputs", [(), (TensorSpec("out", "bool", (0,)),)])
def test_entries_without_inputs_or_outputs_can_be_called(outputs):
    text = """
    define i32 @bare.shapes(ptr %dims, ptr %symbols, ptr %out, ptr %arena) {
      store i64 0, ptr %out
      store i64 0, ptr %arena
      ret i32 0
    }
    define i32 @bare.run(ptr %block) {
      ret i32 0
    }
    """
    entry = Entry("bare", (), outputs)
    result = Executable(entry, load_text(text, exports_of(entry)))()
    assert result == () if not outputs else result.shape == (0,)
