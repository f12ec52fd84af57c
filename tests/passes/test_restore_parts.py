"""Slices and concatenations along the outermost axis move nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.driver.options import make_options
from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.ir.host import CopyStep, HostFunction, InputSlot, KernelStep, OutputSlot, PartSlot
from treadle.ir.interpret.graph import run
from treadle.passes.lower_host import lower_host
from treadle.testing import compiled_here, ir

OPTIONS = make_options("native", "default", 1, True)


def host_of(text: str) -> HostFunction:
    loops = loop_pipeline(OPTIONS.target, 1).run(graph_pipeline().run(ir(text)))
    return lower_host(loops)


def kernels(host: HostFunction) -> list[KernelStep]:
    return [s for s in host.steps if isinstance(s, KernelStep)]


def values(text: str, *arrays: np.ndarray) -> None:
    """Compare machine code with the interpreter."""
    module = ir(text)
    found = compiled_here(module)(*arrays)
    found = found if isinstance(found, tuple) else (found,)
    for a, b in zip(found, run(module, "main", *arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_operands_of_a_concatenation_are_made_in_their_places():
    text = """
        @graph.function
        def main(x: Tensor[(3, 8), f32], y: Tensor[(n, 8), f32]) -> (Tensor[(n + 3, 8), f32],):
            a = softmax(x, axis=1)
            b = softmax(y, axis=1)
            c = concat(a, b, axis=0)
            return c
    """
    host = host_of(text)
    assert not [s for s in host.steps if isinstance(s, CopyStep)]
    assert kernels(host)[0].buffers[1] == OutputSlot(0)
    second = kernels(host)[1].buffers[1]
    assert isinstance(second, PartSlot)
    assert (second.whole, str(second.offset)) == (OutputSlot(0), "96")
    assert str(host.arena) == "0"
    rng = np.random.default_rng(0)
    values(text, rng.random((3, 8), np.float32), rng.random((5, 8), np.float32))


def test_what_is_made_elsewhere_is_copied_to_its_place():
    text = """
        @graph.function
        def main(x: Tensor[(3, 8), f32]) -> (Tensor[(12, 8), f32], Tensor[(3, 8), f32]):
            a = softmax(x, axis=1)
            b = softmax(a, axis=1)
            c = concat(x, a, b, a, axis=0)
            return c, b
    """
    host = host_of(text)
    copies = [s for s in host.steps if isinstance(s, CopyStep)]
    assert [c.source for c in copies] == [
        InputSlot(0),
        OutputSlot(1),
        PartSlot(OutputSlot(0), copies[2].source.offset),  # type: ignore[union-attr]
    ]
    values(text, np.random.default_rng(0).random((3, 8), np.float32))


def test_a_slice_of_rows_that_several_kernels_read_is_a_view():
    text = """
        @graph.function
        def main(x: Tensor[(9, 8), f32]) -> (Tensor[(4, 8), f32], Tensor[(4, 8), f32]):
            a = softmax(x, axis=1)
            b = slice(a, axis=0, start=2, stop=6)
            c = softmax(b, axis=0)
            d = softmax(b, axis=1)
            return c, d
    """
    host = host_of(text)
    assert len(kernels(host)) == 3
    source = kernels(host)[1].buffers[0]
    assert isinstance(source, PartSlot)
    assert str(source.offset) == "64"
    values(text, np.random.default_rng(0).random((9, 8), np.float32))


def test_a_slice_that_leaves_the_function_is_a_copy():
    text = """
        @graph.function
        def main(x: Tensor[(9, 8), f32]) -> (Tensor[(4, 8), f32],):
            b = slice(x, axis=0, start=2, stop=6)
            return b
    """
    assert len(kernels(host_of(text))) == 1
    values(text, np.random.default_rng(0).random((9, 8), np.float32))


def test_what_is_returned_twice_is_a_copy():
    text = """
        @graph.function
        def main(x: Tensor[(4, 8), f32]) -> (Tensor[(4, 8), f32], Tensor[(4, 8), f32], Tensor[(4, 8), f32]):
            a = neg(x)
            b = neg(x)
            return a, b, x
    """  # noqa: E501
    values(text, np.random.default_rng(0).random((4, 8), np.float32))


def test_what_lies_in_a_concatenation_is_not_overwritten_before_it_is_read():
    text = """
        @graph.function
        def main(x: Tensor[(4, 8), f32]) -> (Tensor[(8, 8), f32],):
            a = softmax(x, axis=1)
            b = softmax(a, axis=1)
            c = concat(a, b, axis=0)
            d = softmax(c, axis=1)
            e = add(c, d)
            return e
    """
    values(text, np.random.default_rng(0).random((4, 8), np.float32))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_programs_of_slices_and_concatenations_keep_their_meaning(data):
    count, lines, rows = data.draw(st.integers(2, 6)), [], [("x", 4), ("y", 3)]
    for k in range(count):
        kind = data.draw(st.sampled_from(("concat", "slice", "softmax", "neg")))
        name, size = data.draw(st.sampled_from(rows))
        other, more = data.draw(st.sampled_from(rows))
        if kind == "concat":
            lines.append(f"v{k} = concat({name}, {other}, axis=0)")
            size += more
        elif kind == "slice":
            start = data.draw(st.integers(0, size - 1))
            stop = data.draw(st.integers(start + 1, size))
            lines.append(f"v{k} = slice({name}, axis=0, start={start}, stop={stop})")
            size = stop - start
        else:
            lines.append(f"v{k} = {kind}({name}{', axis=1' if kind == 'softmax' else ''})")
        rows.append((f"v{k}", size))
    results = data.draw(st.lists(st.sampled_from(rows[2:]), min_size=1, unique=True))
    types = ", ".join(f"Tensor[({size}, 5), f32]" for _, size in results)
    text = "\n".join(
        (
            "@graph.function",
            f"def main(x: Tensor[(4, 5), f32], y: Tensor[(3, 5), f32]) -> ({types},):",
            *(f"    {line}" for line in lines),
            f"    return {', '.join(name for name, _ in results)}",
        )
    )
    rng = np.random.default_rng(0)
    values(text, rng.random((4, 5), np.float32), rng.random((3, 5), np.float32))


@pytest.mark.parametrize("branch", [True, False])
def test_branches_may_join(branch):
    text = """
        @graph.function
        def one(x: Tensor[(4, 8), f32]) -> (Tensor[(8, 8), f32],):
            a = softmax(x, axis=1)
            b = softmax(a, axis=1)
            c = concat(a, b, axis=0)
            return c

        @graph.function
        def main(p: Tensor[(), bool], x: Tensor[(4, 8), f32]) -> (Tensor[(8, 8), f32],):
            y = cond(p, x, then=one, orelse=one, out=(Tensor[(8, 8), f32],))
            return y
    """
    values(text, np.array(branch), np.random.default_rng(0).random((4, 8), np.float32))
