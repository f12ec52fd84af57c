"""Compiling texts to objects: cache, workers, errors."""

import ctypes

import numpy as np
import pytest

from treadle.base.errors import CodegenError, InternalError
from treadle.codegen.llvm.object import CompilerWorkers, compile_objects
from treadle.target import Target
from treadle_runtime.loader import load

NATIVE = Target.native()

# LLVM cannot select an instruction of an extension that the CPU lacks, and ends the process.
FATAL = """
declare <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32>, <64 x i8>, <64 x i8>)
define <16 x i32> @f(<16 x i32> %a, <64 x i8> %b, <64 x i8> %c) {
  %r = call <16 x i32> @llvm.x86.avx512.vpdpbusd.512(<16 x i32> %a, <64 x i8> %b, <64 x i8> %c)
  ret <16 x i32> %r
}
"""


def text(number: int) -> str:
    return f"define i64 @f() {{\n  ret i64 {number}\n}}\n"


def number_of(code: bytes) -> int:
    loaded = load(code, ["f"])
    return ctypes.CFUNCTYPE(ctypes.c_int64)(loaded["f"])()


@pytest.mark.parametrize("workers", [0, 2])
def test_objects_come_in_the_order_of_their_texts(workers):
    codes = compile_objects([text(i) for i in range(5)], NATIVE, workers)
    assert [number_of(code) for code in codes] == list(range(5))


@pytest.mark.parametrize("workers", [0, 1])
def test_invalid_text_is_our_bug(workers):
    with pytest.raises(InternalError, match="invalid LLVM IR"):
        compile_objects(["define i64 @f() { ret i32 0 }"], NATIVE, workers)


def test_an_abort_of_llvm_is_an_error_of_that_module_alone():
    with CompilerWorkers(Target.parse("x86-64-v2"), 1) as workers:
        good, bad, after = workers.compile([text(1), FATAL, text(2)])
    assert isinstance(bad, CodegenError)
    assert bad.code == "E0510"
    assert isinstance(good, bytes)
    assert isinstance(after, bytes)


def test_an_abort_of_llvm_is_raised():
    with pytest.raises(CodegenError, match="LLVM cannot make machine code"):
        compile_objects([FATAL], Target.parse("x86-64-v2"), 1)


def test_one_text_gives_one_object():
    codes = compile_objects([text(1)] * 2, NATIVE)
    assert codes[0] == codes[1]
    assert np.frombuffer(codes[0][:4], np.uint8).tolist() == [0x7F, *b"ELF"]
