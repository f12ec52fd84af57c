"""Products of one value by several matrices are one product where its parts cost nothing later."""

import numpy as np
import pytest

from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ops import Matmul
from treadle.passes.lower_host import lower_host
from treadle.passes.merge_products import merge_products
from treadle.passes.pipeline import Pipeline
from treadle.target import Target
from treadle.testing import assert_same_ir, compiled_here, ir

NATIVE = Target.native()
RNG = np.random.default_rng(0)
WEIGHTS = {
    **{f"w{k}": RNG.standard_normal((8, 6)).astype(np.float32) for k in range(3)},
    **{f"b{k}": RNG.standard_normal(6).astype(np.float32) for k in range(3)},
}
ATTENTION = """
    q = matmul(x, constants.w0)
    k = matmul(x, constants.w1)
    v = matmul(x, constants.w2)
    q1 = add(q, constants.b0)
    k1 = add(k, constants.b1)
    v1 = add(constants.b2, v)
    k2 = permute(k1, axes=(1, 0))
    k3 = mul(k2, f32(0.5))
    a = matmul(q1, k3)
    p = softmax(a, axis=1)
    y = matmul(p, v1)
"""


def program(lines: str, columns: str = "6") -> Module:
    declared = "".join(
        f"{name} = constant(Tensor[{array.shape!s}, f32])\n"
        for name, array in WEIGHTS.items()
        if f"constants.{name}" in lines
    )
    body = "".join(f"    {line.strip()}\n" for line in lines.strip().splitlines())
    head = f"def main(x: Tensor[(n, 8), f32]) -> (Tensor[(n, {columns}), f32],):"
    text = f"{declared}@graph.function\n{head}\n{body}    return y\n"
    return ir(text, {k: v for k, v in WEIGHTS.items() if f"constants.{k}" in lines})


def constant_products(module: Module) -> list[str]:
    """The shapes of the constants that ``x`` is multiplied by."""
    body = module.graph("main").body
    return [str(b.args[1].type) for b in body if type(b.op) is Matmul and b.args[0].name == "x"]  # type: ignore[union-attr]


def test_queries_keys_and_values_are_one_product():
    module = program(ATTENTION)
    merged = merge_products(module)
    assert constant_products(merged) == ["Tensor[(8, 18), f32]"]
    assert {c.array.shape for c in merged.constants.values()} == {(8, 18), (18,)}
    x = RNG.standard_normal((5, 8)).astype(np.float32)
    expected = run(module, "main", x)[0]
    np.testing.assert_allclose(run(merged, "main", x)[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(compiled_here(module)(x), expected, rtol=1e-4, atol=1e-5)


def test_the_parts_of_the_product_are_read_where_they_lie():
    loops = loop_pipeline(NATIVE, 1)
    whole = graph_pipeline()
    apart = Pipeline(tuple(p for p in whole.passes if p.name != "merge_products"))
    one, three = (
        len(lower_host(loops.run(p.run(program(ATTENTION)))).steps) for p in (whole, apart)
    )
    assert one == three - 2


APART = {
    "results meet element by element": """
        g = matmul(x, constants.w0)
        u = matmul(x, constants.w1)
        s = silu(g)
        y = mul(s, u)
    """,
    "a factor belongs to the tile": """
        q = matmul(x, constants.w0)
        k = matmul(x, constants.w1)
        q1 = mul(q, f32(0.5))
        t = permute(k, axes=(1, 0))
        a = matmul(q1, t)
        y = matmul(a, x)
    """,
    "a result leaves the function": """
        y = matmul(x, constants.w0)
        k = matmul(x, constants.w1)
    """,
    "a result has two uses": """
        q = matmul(x, constants.w0)
        k = matmul(x, constants.w1)
        t = permute(k, axes=(1, 0))
        a = matmul(q, t)
        b = matmul(a, k)
        y = add(b, q)
    """,
    "a matrix is used again": """
        q = matmul(x, constants.w0)
        k = matmul(x, constants.w0)
        t = permute(k, axes=(1, 0))
        a = matmul(q, t)
        y = matmul(a, x)
    """,
    "only some have an addition": """
        q = matmul(x, constants.w0)
        k = matmul(x, constants.w1)
        k1 = add(k, constants.b1)
        t = permute(k1, axes=(1, 0))
        a = matmul(q, t)
        y = matmul(a, x)
    """,
}


@pytest.mark.parametrize("why", APART)
def test_products_stay_apart_where(why):
    columns = "8" if "matmul(a, x)" in APART[why] else "6"
    module = program(APART[why], columns)
    assert_same_ir(merge_products(module), module)


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (128, 1), (129, 3)])
def test_many_rows_stay_apart(rows, count):
    text = str(program(ATTENTION)).replace("(n, ", f"({rows}, ")
    text = text.replace("assume(n >= 0)", "")
    module = ir(text, WEIGHTS)
    assert len(constant_products(merge_products(module))) == count
