"""Products of integers that came from bytes are products of bytes, with the same results."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.driver.pipelines import graph_pipeline
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ops import IntegerMatmul, Matmul
from treadle.passes.canonicalize import canonicalize
from treadle.passes.narrow_products import narrow_products
from treadle.testing import assert_same_ir, compiled_here, ir

RNG = np.random.default_rng(0)


def product(left: str, right: str, lines: str, weight: np.ndarray | None = None) -> Module:
    declared = "" if weight is None else f"w = constant(Tensor[{weight.shape}, {right}])\n"
    params = f"x: Tensor[(n, 12), {left}]"
    if weight is None:
        params += f", w: Tensor[(12, 5), {right}]"
    body = "".join(f"    {line}\n" for line in lines.strip().splitlines())
    text = (
        f"{declared}@graph.function\n"
        f"def main({params}, z: Tensor[(), u8]) -> (Tensor[(n, 5), i32],):\n{body}    return y\n"
    )
    return ir(text, {} if weight is None else {"w": weight})


def kinds(module: Module) -> list[type]:
    return [type(b.op) for b in module.graph("main").body]


def bytes_of(*shape: int, signed: bool = False) -> np.ndarray:
    low, high, dtype = (-128, 128, np.int8) if signed else (0, 256, np.uint8)
    return RNG.integers(low, high, shape).astype(dtype)


PLAIN = """
a = cast(x, dtype=i32)
b = cast({w}, dtype=i32)
y = matmul(a, b)
"""


@pytest.mark.parametrize("left", ["u8", "i8"])
@pytest.mark.parametrize("right", ["u8", "i8"])
def test_casts_of_bytes_go_away(left: str, right: str):
    module = product(left, right, PLAIN.format(w="w"))
    narrow = canonicalize(narrow_products(module))
    assert kinds(narrow) == [IntegerMatmul]
    x = bytes_of(3, 12, signed=left == "i8")
    w = bytes_of(12, 5, signed=right == "i8")
    arrays = [x, w, np.asarray(3, np.uint8)]
    for before, after in zip(
        run(module, "main", *arrays), run(narrow, "main", *arrays), strict=True
    ):
        np.testing.assert_array_equal(after, before)


def test_a_constant_of_small_numbers_is_one_of_bytes():
    weight = RNG.integers(-128, 128, (12, 5)).astype(np.int32)
    module = product("u8", "i32", "a = cast(x, dtype=i32)\ny = matmul(a, constants.w)", weight)
    narrow = canonicalize(narrow_products(module))
    assert kinds(narrow) == [IntegerMatmul]
    assert [str(c.type.dtype) for c in narrow.constants.values()] == ["i8"]


def test_the_pipeline_multiplies_bytes():
    module = product("u8", "i8", PLAIN.format(w="w"))
    assert IntegerMatmul in kinds(graph_pipeline().run(module))


def test_a_constant_of_large_numbers_stays():
    weight = RNG.integers(-1000, 1000, (12, 5)).astype(np.int32)
    module = product("u8", "i32", "a = cast(x, dtype=i32)\ny = matmul(a, constants.w)", weight)
    assert_same_ir(narrow_products(module), module)


def test_floats_stay():
    text = """
        @graph.function
        def main(x: Tensor[(3, 4), f32], w: Tensor[(4, 5), f32]) -> (Tensor[(3, 5), f32],):
            y = matmul(x, w)
            return y
    """
    assert kinds(narrow_products(ir(text))) == [Matmul]


POINT = """
a = cast(x, dtype=i32)
p = cast(z, dtype=i32)
c = sub(a, p)
y = matmul(c, constants.w)
"""


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 5), point=st.integers(0, 255), seed=st.integers(0, 99))
def test_a_point_is_taken_off_the_result(rows: int, point: int, seed: int):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (12, 5)).astype(np.int32)
    module = product("u8", "i32", POINT, weight)
    narrow = canonicalize(narrow_products(module))
    assert IntegerMatmul in kinds(narrow)
    assert Matmul not in kinds(narrow)
    arrays = [rng.integers(0, 256, (rows, 12)).astype(np.uint8), np.asarray(point, np.uint8)]
    np.testing.assert_array_equal(run(narrow, "main", *arrays)[0], run(module, "main", *arrays)[0])


def test_a_point_of_the_weight_is_a_part_of_the_constant():
    weight = RNG.integers(0, 256, (12, 5)).astype(np.uint8)
    lines = """
    a = cast(x, dtype=i32)
    b = cast(constants.w, dtype=i32)
    c = sub(b, i32(128))
    y = matmul(a, c)
    """
    module = product("u8", "u8", lines.replace("    ", ""), weight)
    narrow = canonicalize(narrow_products(module))
    assert kinds(narrow) == [IntegerMatmul]
    arrays = [bytes_of(3, 12), np.asarray(0, np.uint8)]
    found, expected = (run(m, "main", *arrays)[0] for m in (narrow, module))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(1, 12, 5), (7, 16, 70), (33, 64, 64), (5, 13, 9)])
def test_compiled_products_of_bytes_are_exact(shape: tuple[int, int, int]):
    m, k, n = shape
    weight = RNG.integers(-128, 128, (k, n)).astype(np.int8)
    text = f"""
        w = constant(Tensor[({k}, {n}), i8])
        @graph.function
        def main(x: Tensor[({m}, {k}), u8]) -> (Tensor[({m}, {n}), i32],):
            a = cast(x, dtype=i32)
            b = cast(constants.w, dtype=i32)
            y = matmul(a, b)
            return y
    """
    exe = compiled_here(ir(text, {"w": weight}))
    x = bytes_of(m, k)
    found = np.asarray(exe(x))
    np.testing.assert_array_equal(found, x.astype(np.int32) @ weight.astype(np.int32))
