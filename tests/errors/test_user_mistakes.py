"""Whatever a user passes, a TreadleError answers, and no file is left behind."""

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import treadle
from treadle.base.errors import TreadleError
from treadle.driver.executable import pack_objects
from treadle.target import Target
from treadle.testing import ir
from treadle_runtime import write_artifact

RELU = "@graph.function\ndef main(x: Tensor[({dim}, 4), f32]):\n    y = {op}\n    return y\n"


def program(dim="n", op="relu(x)"):
    return ir(RELU.format(dim=dim, op=op))


@pytest.fixture(scope="module")
def exe():
    return treadle.compile(program(), threads=1)


MISTAKES = {
    "a list": ("E0702", lambda exe: exe([[1.0] * 4])),
    "nothing": ("E0702", lambda exe: exe(None)),
    "a word": ("E0702", lambda exe: exe("x")),
    "no input": ("E0701", lambda exe: exe()),
    "an unknown name": ("E0701", lambda exe: exe(y=np.zeros((2, 4), np.float32))),
    "objects": ("E0703", lambda exe: exe(np.array([[None] * 4]))),
    "doubles": ("E0703", lambda exe: exe(np.zeros((2, 4)))),
    "integers": ("E0703", lambda exe: exe(np.zeros((2, 4), np.int32))),
    "too few dimensions": ("E0704", lambda exe: exe(np.zeros(4, np.float32))),
    "too many dimensions": ("E0704", lambda exe: exe(np.zeros((1, 2, 4), np.float32))),
    "a wrong dimension": ("E0705", lambda exe: exe(np.zeros((2, 5), np.float32))),
    "memory for nan": ("E0802", lambda exe: exe.memory(n=float("nan"))),
    "memory for less than nothing": ("E0802", lambda exe: exe.memory(n=-1)),
}


@pytest.mark.parametrize(("code", "call"), MISTAKES.values(), ids=MISTAKES)
def test_a_call_that_does_not_fit_is_refused_and_the_next_one_works(exe, code, call):
    with pytest.raises(TreadleError) as caught:
        call(exe)
    assert caught.value.code == code
    assert exe(np.ones((2, 4), np.float32)).shape == (2, 4)


DIMENSIONS = {
    "nan in a type": ("E0004", {"dim": 'float("nan")'}),
    "a fraction": ("E0005", {"dim": "1.5"}),
    "less than nothing": ("E0005", {"dim": "-1"}),
    "too large": ("E0005", {"dim": str(2**63)}),
    "nan in a field": ("E0108", {"op": 'full(shape=(float("nan"),), value=0.0, dtype=f32)'}),
    "a negative size": ("E0108", {"op": "full(shape=(-3,), value=0.0, dtype=f32)"}),
    "nan in a reshape": ("E0108", {"op": 'reshape(x, shape=(float("nan"),))'}),
    "nan in a range": ("E0108", {"op": 'arange(start=0, stop=float("nan"), step=1, dtype=i64)'}),
    "infinity in a range": (
        "E0108",
        {"op": 'arange(start=0, stop=float("inf"), step=1, dtype=i64)'},
    ),
    "nan as a scale": ("E0108", {"op": 'resize(x, shape=(n, 8), scales=(1.0, float("nan")))'}),
    "no such function": ("E0206", {"op": "call(g, x, out=(Tensor[(n, 4), f32],))"}),
}


@pytest.mark.parametrize(("code", "parts"), DIMENSIONS.values(), ids=DIMENSIONS)
def test_a_program_of_no_meaning_is_refused(code, parts):
    with pytest.raises(TreadleError) as caught:
        treadle.compile(program(**parts), threads=1)
    assert caught.value.code == code


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 0.0, 1e30])
def test_a_scale_of_no_meaning_is_refused(scale):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "main (float[1, 1, 4, 4] x) => (float[a, b, c, d] y) { y = Resize(x, , s) }"
    )
    scales = np.array([1, 1, scale, 2], np.float32)
    model.graph.initializer.append(numpy_helper.from_array(scales, "s"))
    with pytest.raises(TreadleError) as caught:
        treadle.compile(model, threads=1)
    assert caught.value.code == "E0605"


@pytest.mark.parametrize("name", ["gone.onnx", "gone.treadle", "gone.py", ".", "notes.txt"])
def test_a_path_without_a_model_is_refused(tmp_path, name):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(TreadleError) as caught:
        treadle.compile(tmp_path / name)
    assert caught.value.code == "E0611"


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "model.py"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TreadleError) as caught:
        treadle.compile(path)
    assert caught.value.code == "E0611"


def test_code_for_another_cpu_is_refused():
    foreign = "x86-64-v2" if Target.native().arch == "aarch64" else "aarch64"
    with pytest.raises(TreadleError) as caught:
        treadle.compile(program(), threads=1, target=foreign)
    assert caught.value.code == "E0731"


def test_an_artifact_with_objects_of_another_cpu_is_compiled_for_this_one(exe, tmp_path):
    path = tmp_path / "relu.treadle"
    objects = {"z80-linux-none": pack_objects((b"not for this machine",))}
    write_artifact(path, str(exe.module), {}, exe.build.manifest, objects)
    x = np.array([[-1, 0, 1, 2]], np.float32)
    np.testing.assert_array_equal(treadle.load(path, threads=1)(x), np.maximum(x, 0))


def test_an_artifact_that_cannot_be_written_leaves_the_old_one(exe, tmp_path, monkeypatch):
    path = tmp_path / "relu.treadle"
    exe.save(path)
    before = path.read_bytes()

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("treadle_runtime.files.os.fsync", full_disk)
    with pytest.raises(TreadleError) as caught:
        exe.save(path)
    assert caught.value.code == "E0710"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---- Damaged files

ONNX_MODEL = onnx.parser.parse_model(
    """
    <ir_version: 8, opset_import: ["" : 17]>
    main (float[n, 4] x) => (float[n, q] y) <float[4] w = {1, 2, 3, 4}> {
        a = Mul(x, w)
        s = Constant<value = int64[2] {0, -1}>()
        b = Reshape(a, s)
        y = Softmax<axis = -1>(b)
    }
    """
).SerializeToString()


@given(size=st.integers(0, len(ONNX_MODEL) - 1))
@settings(deadline=None, max_examples=25)
def test_an_onnx_file_cut_anywhere_is_refused(size, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "model.onnx"
    path.write_bytes(ONNX_MODEL[:size])
    with pytest.raises(TreadleError):
        treadle.compile(path, threads=1)


@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
@settings(deadline=None, max_examples=15)
def test_an_onnx_file_with_a_changed_byte_is_refused_or_compiles(at, value, tmp_path_factory):
    path = tmp_path_factory.mktemp("changed") / "model.onnx"
    data = bytearray(ONNX_MODEL)
    data[int(at * len(data))] = value
    path.write_bytes(data)
    try:
        found = treadle.compile(path, threads=1)
    except TreadleError:
        return
    assert found.signature


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(deadline=None, max_examples=40)
def test_an_artifact_with_a_flipped_bit_is_refused_or_means_the_same(
    exe, at, bit, tmp_path_factory
):
    path = tmp_path_factory.mktemp("flip") / "relu.treadle"
    exe.save(path)
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1 << bit
    path.write_bytes(data)
    x = np.array([[-1, 0, 1, 2]], np.float32)
    try:
        again = treadle.load(path, threads=1)
    except TreadleError:
        return
    # Fields of the zip that nobody reads, such as times, may differ.
    np.testing.assert_array_equal(again(x), np.maximum(x, 0))
