"""``numerics="strict"``: compiled programs give the very bits of the loops that define them."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.codegen.llvm.kernel import kernel_text
from treadle.driver.pipelines import graph_pipeline, loop_pipeline, lower_pipeline
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.passes.legalize import legalize
from treadle.target import Target
from treadle.testing import ir

SUMS = """
@graph.function
def main(x: Tensor[(n, 37), {t}]) -> (
    Tensor[(n,), {t}], Tensor[(37,), {t}], Tensor[(), {t}], Tensor[(n,), {t}], Tensor[(n, 37), {t}],
):
    a = sum(x, axes=(1,))
    b = sum(x, axes=(0,))
    c = sum(x, axes=(0, 1))
    d = prod(x, axes=(1,))
    e = cum_sum(x, axis=1)
    return a, b, c, d, e
"""
PRODUCT = """
@graph.function
def main(x: Tensor[(n, 37), {t}], w: Tensor[(37, 33), {t}], b: Tensor[(33,), {t}]) -> (
    Tensor[(n, 33), {t}],
):
    y = matmul(x, w)
    z = add(y, b)
    r = relu(z)
    return r
"""
CONVOLUTION = """
@graph.function
def main(x: Tensor[(n, 3, 5, 6), {t}], w: Tensor[(8, 3, 3, 3), {t}]) -> (
    Tensor[(n, 8, 5, 6), {t}],
):
    y = conv(x, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    return y
"""
NORMALIZED = """
@graph.function
def main(x: Tensor[(n, 37), {t}], g: Tensor[(37,), {t}]) -> (Tensor[(n, 37), {t}],):
    top = max(x, axes=(1,), keepdims=True)
    low = sub(top, x)
    total = sum(low, axes=(1,), keepdims=True)
    y = div(low, total)
    z = layer_norm(y, g, axes_from=1, eps=1e-05)
    return z
"""
ELEMENTWISE = """
@graph.function
def main(x: Tensor[(n, 37), {t}], y: Tensor[(n, 37), {t}]) -> (Tensor[(n, 37), {t}],):
    a = mul(x, y)
    b = add(a, x)
    c = mul(b, b)
    d = sub(a, c)
    e = mul(d, x)
    f = sub(y, e)
    return f
"""
PROGRAMS = {
    "sums": (SUMS, [(None, 37)]),
    "product": (PRODUCT, [(None, 37), (37, 33), (33,)]),
    "convolution": (CONVOLUTION, [(None, 3, 5, 6), (8, 3, 3, 3)]),
    "normalized": (NORMALIZED, [(None, 37), (37,)]),
    "elementwise": (ELEMENTWISE, [(None, 37), (None, 37)]),
}


def drawn(shapes, n, dtype, seed):
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal([n if d is None else d for d in shape]).astype(dtype)
        for shape in shapes
    ]


def defined(module: Module, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The result of the plain loops, one step after another."""
    loops = legalize(graph_pipeline().run(module))
    return run(loops, "main", *arrays, vectorize=False)


def results(exe, arrays):
    found = exe(*arrays)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["f16", "f32", "f64"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_those_of_the_loops_bit_for_bit(name, dtype, threads):
    text, shapes = PROGRAMS[name]
    module = ir(text.format(t=dtype))
    exe = treadle.compile(module, threads=threads, numerics="strict")
    for n in (1, 5):
        arrays = drawn(shapes, n, {"f16": "f2", "f32": "f4", "f64": "f8"}[dtype], n)
        for a, b in zip(results(exe, arrays), defined(module, arrays), strict=True):
            assert a.tobytes() == b.tobytes()


@cache
def strict_sums():
    module = ir(SUMS.format(t="f32"))
    return module, treadle.compile(module, threads=1, numerics="strict")


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_sums_keep_their_order_for_any_number_of_rows(n, seed):
    module, exe = strict_sums()
    arrays = drawn([(None, 37)], n, "f4", seed)
    for a, b in zip(results(exe, arrays), defined(module, arrays), strict=True):
        assert a.tobytes() == b.tobytes()


def kernels(strict: bool) -> str:
    target = Target.native()
    texts: list[str] = []
    for text, _ in PROGRAMS.values():
        graph = graph_pipeline().run(ir(text.format(t="f32")))
        scheduled = loop_pipeline(target, 1, strict=strict).run(graph)
        for f in lower_pipeline().run(scheduled).tensor_functions:
            texts.extend(kernel_text(f, target, contract=not strict).definitions)
    return "\n".join(texts)


def test_machine_code_has_no_freedom_that_it_has_otherwise():
    freedoms = ("contract", "fmuladd", "reassoc")
    strict, free = kernels(strict=True), kernels(strict=False)
    assert [word for word in freedoms if word in strict] == []
    assert [word for word in freedoms if word in free] == list(freedoms)


def test_a_multiply_add_that_a_program_spells_out_rounds_its_product():
    module = ir("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range(n):
            with block("Y"):
                v = spatial(n, i)
                Y[v] = fmuladd(X[v], X[v], X[v])

    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        y = call_tensor(f, x, out=(Tensor[(n,), f32],))
        return y
    """)
    (x,) = drawn([(None,)], 1000, "f4", 0)
    y = treadle.compile(module, threads=1, numerics="strict")(x)
    assert y.tobytes() == (x * x + x).tobytes()


def test_an_artifact_remembers_the_mode_and_caches_keep_modes_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TREADLE_CACHE", str(tmp_path / "cache"))
    module = ir(SUMS.format(t="f32"))
    free = treadle.compile(module, threads=1)
    exe = treadle.compile(module, threads=1, numerics="strict")
    assert exe.build.objects != free.build.objects
    exe.save(tmp_path / "model.treadle")
    again = treadle.load(tmp_path / "model.treadle", threads=1)
    assert again.build.manifest.numerics == "strict"
    arrays = drawn([(None, 37)], 9, "f4", 3)
    for a, b in zip(results(again, arrays), defined(module, arrays), strict=True):
        assert a.tobytes() == b.tobytes()
