import ctypes
import gc

import pytest

from treadle_runtime.errors import InternalError, RuntimeFault
from treadle_runtime.loader import (
    compile_text,
    host_cpu_key,
    load,
    load_text,
    object_hash,
)

SQUARE = """
define double @square(double %x) {
  %y = fmul double %x, %x
  ret double %y
}
"""
USES = """
@table = internal constant [4 x double] [double 1.0, double 2.0, double 3.0, double 4.0]
declare double @exp(double)
declare i64 @ours(i64)
define double @use(double %x, i64 %i) {
  %j = call i64 @ours(i64 %i)
  %p = getelementptr [4 x double], ptr @table, i64 0, i64 %j
  %t = load double, ptr %p
  %e = call double @exp(double %x)
  %r = fadd double %e, %t
  ret double %r
}
"""
ONE_DOUBLE = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)


@pytest.fixture(scope="module")
def square():
    return compile_text(SQUARE)


def test_loaded_code_can_be_called(square):
    code = load(square, ["square"], expected_hash=object_hash(square))
    assert ONE_DOUBLE(code["square"])(3.0) == 9.0


def test_one_object_can_be_loaded_many_times_and_unloaded(square):
    for _ in range(20):
        codes = [load(square, ["square"]) for _ in range(3)]
        assert [ONE_DOUBLE(code["square"])(2.0) for code in codes] == [4.0] * 3
        del codes
        gc.collect()


def test_symbols_come_by_address_and_from_the_process():
    ours = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda i: i + 1)
    address = ctypes.cast(ours, ctypes.c_void_p).value
    code = load_text(USES, ["use"], {"ours": address})
    use = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double, ctypes.c_int64)(code["use"])
    assert use(0.0, 2) == 5.0


def test_missing_symbols_and_exports_are_named():
    with pytest.raises(RuntimeFault, match=r"E0733[\s\S]*missing symbols: ours\n"):
        load_text(USES, ["use"])
    with pytest.raises(RuntimeFault, match=r"E0733[\s\S]*nothing"):
        load_text(SQUARE, ["nothing"])


def test_every_truncation_of_an_object_is_refused(square):
    digest = object_hash(square)
    for length in range(len(square)):
        with pytest.raises(RuntimeFault, match=r"E073[0-2]"):
            load(square[:length], ["square"], expected_hash=digest)


def test_every_changed_byte_of_an_object_is_refused(square):
    digest = object_hash(square)
    for at in range(len(square)):
        changed = bytearray(square)
        changed[at] ^= 0xFF
        with pytest.raises(RuntimeFault, match=r"E073[0-2]"):
            load(bytes(changed), ["square"], expected_hash=digest)


@pytest.mark.parametrize(
    "junk", [b"", b"\x7fELF", b"MZ" * 100, b"\x7fELF\x02\x01\x01" + bytes(200)]
)
def test_junk_is_refused_without_a_hash(junk):
    with pytest.raises(RuntimeFault, match="E0730"):
        load(junk, ["f"])


def test_an_object_for_another_cpu_is_refused(square):
    changed = bytearray(square)
    changed[18:20] = (8).to_bytes(2, "little")
    with pytest.raises(RuntimeFault, match="E0731"):
        load(bytes(changed), ["square"])


def test_invalid_text_is_our_bug():
    with pytest.raises(InternalError, match="LLVM IR"):
        compile_text("define nonsense")


def test_the_cpu_key_is_a_file_name():
    assert host_cpu_key() == host_cpu_key()
    assert host_cpu_key().replace("-", "").replace("_", "").replace(".", "").isalnum()
