import io
import os
import zipfile
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from treadle_runtime import artifact
from treadle_runtime.errors import InternalError, RuntimeFault, TreadleError
from treadle_runtime.manifest import Manifest

TEXT = "def main():\n    return 'é'\n"
WEIGHTS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(3).astype(ml_dtypes.bfloat16),
    "flag": np.array([True, False]),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.uint8),
}
OBJECTS = {"x86_64-linux-znver4-0123": b"\x7fELF code", "other": b"more"}


@pytest.fixture
def path(tmp_path, axpy_entry):
    path = tmp_path / "model.treadle"
    artifact.write(path, TEXT, WEIGHTS, Manifest((axpy_entry,), "0.1", "22.1"), OBJECTS)
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts:
            archive.writestr(name, data)


def code_of(path):
    with pytest.raises(RuntimeFault) as caught:
        artifact.read(path)
    assert caught.value.help
    assert str(path) in str(caught.value) or caught.value.code == "E0720"
    return caught.value.code


def test_write_then_read_is_identity(path, axpy_entry):
    contents = artifact.read(path)
    assert contents.module_text == TEXT
    assert contents.manifest.entries == (axpy_entry,)
    assert contents.manifest.treadle_version == "0.1"
    assert dict(contents.objects) == OBJECTS
    assert contents.weights.keys() == WEIGHTS.keys()
    for name, weight in WEIGHTS.items():
        assert contents.weights[name].dtype == weight.dtype
        assert contents.weights[name].shape == weight.shape
        np.testing.assert_array_equal(contents.weights[name], weight)


def test_equal_contents_make_equal_files(path, tmp_path, axpy_entry):
    again = tmp_path / "again.treadle"
    artifact.write(again, TEXT, WEIGHTS, Manifest((axpy_entry,), "0.1", "22.1"), OBJECTS)
    assert again.read_bytes() == path.read_bytes()


def test_strided_and_foreign_weights_are_stored_by_value(tmp_path):
    weights = {"t": np.arange(6.0).reshape(2, 3).T, "b": np.arange(3, dtype=">i4")}
    artifact.write(tmp_path / "a", "", weights, Manifest(()))
    stored = artifact.read(tmp_path / "a").weights
    for name, weight in weights.items():
        np.testing.assert_array_equal(stored[name], weight)
        assert stored[name].dtype.isnative


def test_weights_that_have_no_place_are_refused(tmp_path):
    for weight in (np.zeros(2, np.complex64), np.array(["a"]), np.array([None])):
        with pytest.raises(RuntimeFault, match="E0717: the weight 'w'"):
            artifact.write(tmp_path / "a", "", {"w": weight}, Manifest(()))
    assert list(tmp_path.iterdir()) == []


def test_objects_are_given_only_to_those_who_trust_the_file(path):
    contents = artifact.read(path)
    assert contents.object_for("other") is None
    assert contents.object_for("other", trusted=True) == b"more"
    assert contents.object_for("unknown", trusted=True) is None


def test_every_truncation_is_a_clear_error(path):
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert code_of(path) in ("E0712", "E0713", "E0714", "E0720")


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_changed_byte_is_a_clear_error_or_harmless(path, flip):
    before = artifact.read(path)
    data = path.read_bytes()
    harmless = 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= flip
        path.write_bytes(changed)
        try:
            after = artifact.read(path)
        except TreadleError as error:
            assert error.code in ("E0712", "E0713", "E0714", "E0720")  # noqa: PT017
        else:
            harmless += 1
            assert after.module_text == before.module_text
            assert after.manifest == before.manifest
            assert after.objects == before.objects
    # Times, attributes and version fields of the zip format say nothing about the contents.
    assert harmless < len(data) / 3


def test_wrong_hashes_are_told(path):
    for name in members(path):
        if name == "manifest.json":
            continue
        original = path.read_bytes()
        parts = members(path)
        parts[name] += b" "
        rewrite(path, parts.items())
        assert code_of(path) == "E0714"
        path.write_bytes(original)


def test_missing_and_surplus_parts_are_told(path):
    original = members(path)
    for name in original:
        rewrite(path, [(n, d) for n, d in original.items() if n != name])
        assert code_of(path) == "E0713"
    for name in ("extra", "../evil.py", "/etc/passwd", "objects/../../x.o", "objects/a/b.o"):
        rewrite(path, [*original.items(), (name, b"")])
        assert code_of(path) == "E0713"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_given_twice_is_told(path):
    original = members(path)
    rewrite(path, [*original.items(), ("module.py", original["module.py"])])
    assert code_of(path) == "E0713"


def test_parts_that_unfold_without_end_are_refused(path, monkeypatch):
    monkeypatch.setattr(artifact, "_LARGEST_TEXT", 10)
    assert code_of(path) == "E0713"


def test_damaged_weights_with_a_right_hash_are_told(path, monkeypatch, axpy_entry):
    monkeypatch.setattr(artifact, "_pack", lambda weights: b"not safetensors")
    artifact.write(path, TEXT, WEIGHTS, Manifest((axpy_entry,)))
    assert code_of(path) == "E0713"


def test_another_version_is_told(path, axpy_entry):
    artifact.write(path, TEXT, {}, replace(Manifest((axpy_entry,)), version=99))
    assert code_of(path) == "E0720"


def test_missing_files_and_folders_are_told(tmp_path):
    assert code_of(tmp_path / "none") == "E0711"
    assert code_of(tmp_path) == "E0711"
    assert code_of(tmp_path / "none" / "none") == "E0711"


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06", b"hello" * 100])
def test_files_of_another_kind_are_told(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert code_of(path) == "E0712"


def test_a_zip_of_another_kind_is_told(tmp_path):
    rewrite(tmp_path / "a.zip", [("manifest.json", b"{}")])
    assert code_of(tmp_path / "a.zip") == "E0720"


def test_a_failed_write_leaves_the_old_file_and_no_other(path, monkeypatch, axpy_entry):
    old = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RuntimeFault, match=r"E0710[\s\S]*No space left"):
        artifact.write(path, "new", {}, Manifest((axpy_entry,)))
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_folders_that_do_not_exist_are_told(tmp_path):
    with pytest.raises(RuntimeFault, match="E0710"):
        artifact.write(tmp_path / "none" / "a", "", {}, Manifest(()))


def test_a_cpu_key_that_is_no_name_is_our_bug(tmp_path):
    with pytest.raises(InternalError):
        artifact.write(tmp_path / "a", "", {}, Manifest(()), {"../x": b""})


def test_encrypted_parts_are_refused(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    data[start + 8] |= 1
    path.write_bytes(data)
    assert code_of(path) == "E0713"
