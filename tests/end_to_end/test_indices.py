"""Positions that are data: wrong ones are told where they come from inputs, and never reach beyond
memory wherever they come from.
"""

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import treadle
from treadle.base.errors import RuntimeFault
from treadle.testing import ir

LARGE = (2**31, -(2**31) - 1, 2**40, -(2**40), 2**62, -(2**63), 2**63 - 1)


class Embeddings(torch.nn.Module):
    """The first layer of BERT."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(30, 8)
        self.kinds = torch.nn.Embedding(2, 8)
        self.places = torch.nn.Embedding(16, 8)
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, input_ids, token_type_ids):
        places = torch.arange(input_ids.shape[1])[None]
        return self.norm(self.words(input_ids) + self.kinds(token_type_ids) + self.places(places))


def test_a_token_that_is_not_in_the_vocabulary_is_told_by_input_and_others_pass():
    model = Embeddings().eval()
    ids, kinds = torch.randint(0, 30, (2, 5)), torch.zeros(2, 5, dtype=torch.long)
    length = torch.export.Dim("length", max=16)
    exe = treadle.compile(model, (ids, kinds), dynamic_shapes=({1: length}, {1: length}), threads=1)
    torch.testing.assert_close(exe(ids, kinds), model(ids, kinds))
    longer = torch.randint(0, 30, (2, 9))
    torch.testing.assert_close(
        exe(longer, torch.ones_like(longer)), model(longer, torch.ones_like(longer))
    )
    wrong = longer.clone()
    wrong[1, 8] = 30
    with pytest.raises(RuntimeFault) as told:
        exe(wrong, torch.ones_like(longer))
    assert told.value.code == "E0707"
    assert "gather" in told.value.message
    assert "'input_ids'" in told.value.message
    assert told.value.help == "pass positions from -30 to 29"
    with pytest.raises(RuntimeFault, match=r"E0707.*'token_type_ids'"):
        exe(ids, kinds - 3)
    torch.testing.assert_close(exe(ids, kinds), model(ids, kinds))


def test_a_position_that_an_onnx_model_has_no_element_for_is_told_with_its_node():
    node = helper.make_node("Gather", ["x", "i"], ["y"], name="look_up", axis=1)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("i", TensorProto.INT32, [3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    exe = treadle.compile(model, threads=1)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    i = np.array([0, -4, 3], np.int32)
    np.testing.assert_array_equal(exe(x, i), x[:, i])
    with pytest.raises(RuntimeFault, match="E0707") as told:
        exe(x, np.array([0, 4, 3], np.int32))
    assert "look_up" in str(told.value)
    assert told.value.help == "pass positions from -4 to 3"


def test_a_loaded_artifact_tells_wrong_positions_too(tmp_path):
    module = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32], i: Tensor[(m,), i64]) -> (Tensor[(m,), f32],):
        y = gather(x, i, axis=0)
        return y
    """)
    treadle.compile(module, threads=1).save(tmp_path / "model.treadle")
    exe = treadle.load(tmp_path / "model.treadle", threads=1)
    with pytest.raises(RuntimeFault, match="pass positions from -n to n - 1"):
        exe(np.zeros(3, np.float32), np.array([3]))


def test_a_check_within_a_branch_counts_only_where_the_branch_is_taken():
    module = ir("""
    @graph.function
    def main(
        x: Tensor[(n,), f32], c: Tensor[(), bool], d: Tensor[(), bool]
    ) -> (Tensor[(n,), f32],):
        assume(n >= 1)
        y = cond(c, x, d, then=checked, orelse=plain, out=(Tensor[(n,), f32],))
        return y

    @graph.function
    def checked(x: Tensor[(n,), f32], d: Tensor[(), bool]) -> (Tensor[(n,), f32],):
        good = assert_true(d, message="d is not so", cure="let it be so")
        y = neg(x)
        return y

    @graph.function
    def plain(x: Tensor[(n,), f32], d: Tensor[(), bool]) -> (Tensor[(n,), f32],):
        return x
    """)
    exe = treadle.compile(module, threads=1)
    x, yes, no = np.ones(3, np.float32), np.array(True), np.array(False)
    assert (exe(x, yes, yes) == -1).all()
    assert (exe(x, no, no) == 1).all()
    with pytest.raises(RuntimeFault, match="E0707: 'main' stopped: d is not so") as told:
        exe(x, yes, no)
    assert told.value.help == "let it be so"


def test_the_result_of_a_check_is_what_was_checked():
    module = ir("""
    @graph.function
    def main(d: Tensor[(), bool]) -> (Tensor[(), bool], Tensor[(), bool]):
        good = assert_true(d, message="d is not so")
        bad = logical_not(good)
        return good, bad
    """)
    assert [bool(y) for y in treadle.compile(module, threads=1)(np.array(True))] == [True, False]


# ---- Positions that are computed: nobody tests them, and memory is safe


def compiled(signature: str, operation: str) -> treadle.Executable:
    """A program whose positions are a sum of two inputs, so that they are not tested."""
    return treadle.compile(
        ir(f"""
    @graph.function
    def main({signature}:
        at = add(i, z)
        y = {operation}
        return y
    """),
        threads=1,
    )


@cache
def gathers() -> treadle.Executable:
    return compiled(
        "x: Tensor[(n, 20), f32], i: Tensor[(m,), i64], z: Tensor[(m,), i64])"
        " -> (Tensor[(m, 20), f32],)",
        "gather(x, at, axis=0)",
    )


@cache
def gathers_elements() -> treadle.Executable:
    return compiled(
        "x: Tensor[(3, 20), f32], i: Tensor[(3, m), i64], z: Tensor[(m,), i64])"
        " -> (Tensor[(3, m), f32],)",
        "gather_elements(x, at, axis=1)",
    )


@cache
def gathers_tuples() -> treadle.Executable:
    return compiled(
        "x: Tensor[(5, 20), f32], i: Tensor[(m, 2), i64], z: Tensor[(2,), i64])"
        " -> (Tensor[(m,), f32],)",
        "gather_nd(x, at)",
    )


@cache
def scatters(reduction: str) -> treadle.Executable:
    return compiled(
        "x: Tensor[(3, 20), f32], i: Tensor[(3, m), i64], z: Tensor[(m,), i64],"
        " u: Tensor[(3, m), f32]) -> (Tensor[(3, 20), f32],)",
        f'scatter_elements(x, at, u, axis=1, reduction="{reduction}")',
    )


@cache
def scatters_tuples(reduction: str) -> treadle.Executable:
    return compiled(
        "x: Tensor[(5, 20), f32], i: Tensor[(m, 1), i64], z: Tensor[(1,), i64],"
        " u: Tensor[(m, 20), f32]) -> (Tensor[(5, 20), f32],)",
        f'scatter_nd(x, at, u, reduction="{reduction}")',
    )


def position_lists(extent: int, least: int = 0) -> st.SearchStrategy[list[int]]:
    near = st.integers(-extent - 3, extent + 2)
    return st.lists(near | st.sampled_from(LARGE), min_size=least, max_size=40)


def nearest(index: np.ndarray, extent: int) -> np.ndarray:
    return np.clip(np.where(index < 0, index + extent, index), 0, extent - 1)


def inside(index: int, extent: int) -> bool:
    return -extent <= index < extent


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.data())
def test_gather_reads_the_nearest_slice(extent, data):
    i = np.array(data.draw(position_lists(extent)), np.int64)
    x = np.arange(extent * 20, dtype=np.float32).reshape(extent, 20)
    np.testing.assert_array_equal(gathers()(x, i, np.zeros_like(i)), x[nearest(i, extent)])


@settings(max_examples=10, deadline=None)
@given(position_lists(1, least=1))
def test_gather_of_an_empty_axis_reads_nothing(positions):
    i = np.array(positions, np.int64)
    y = gathers()(np.zeros((0, 20), np.float32), i, np.zeros_like(i))
    np.testing.assert_array_equal(y, np.zeros((len(i), 20), np.float32))
    empty = torch.zeros(0, 20)
    assert empty.data_ptr() == 0
    at = torch.tensor(positions)
    assert not gathers()(empty, at, torch.zeros_like(at)).any()


@settings(max_examples=40, deadline=None)
@given(position_lists(20))
def test_gather_elements_reads_the_nearest_element(positions):
    i = np.array([positions] * 3, np.int64)
    x = np.arange(60, dtype=np.float32).reshape(3, 20)
    y = gathers_elements()(x, i, np.zeros(i.shape[1], np.int64))
    np.testing.assert_array_equal(y, np.take_along_axis(x, nearest(i, 20), 1))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gather_nd_reads_the_nearest_element(data):
    rows = data.draw(position_lists(5))
    columns = data.draw(position_lists(20))
    count = min(len(rows), len(columns))
    i = np.array([rows[:count], columns[:count]], np.int64).T.copy().reshape(count, 2)
    x = np.arange(100, dtype=np.float32).reshape(5, 20)
    y = gathers_tuples()(x, i, np.zeros(2, np.int64))
    np.testing.assert_array_equal(y, x[nearest(i[:, 0], 5), nearest(i[:, 1], 20)])


@settings(max_examples=30, deadline=None)
@given(position_lists(20), st.sampled_from(["none", "add", "max"]))
def test_scatter_elements_leaves_out_what_has_no_element(positions, reduction):
    i = np.array([positions] * 3, np.int64)
    u = np.arange(i.size, dtype=np.float32).reshape(i.shape)
    x = np.ones((3, 20), np.float32)
    expected = x.copy()
    for row in range(3):
        for k, at in enumerate(positions):
            if inside(at, 20):
                expected[row, at] = combined(reduction, expected[row, at], u[row, k])
    y = scatters(reduction)(x, i, np.zeros(i.shape[1], np.int64), u)
    np.testing.assert_array_equal(y, expected)


@settings(max_examples=30, deadline=None)
@given(position_lists(5), st.sampled_from(["none", "add", "max"]))
def test_scatter_nd_leaves_out_slices_that_have_no_place(positions, reduction):
    i = np.array(positions, np.int64).reshape(-1, 1)
    u = np.arange(len(i) * 20, dtype=np.float32).reshape(-1, 20)
    x = np.ones((5, 20), np.float32)
    expected = x.copy()
    for k, at in enumerate(positions):
        if inside(at, 5):
            expected[at] = combined(reduction, expected[at], u[k])
    y = scatters_tuples(reduction)(x, i, np.zeros(1, np.int64), u)
    np.testing.assert_array_equal(y, expected)


def combined(reduction, old, update):
    return {"none": update, "add": old + update, "max": np.maximum(old, update)}[reduction]


def test_rows_of_positions_beyond_the_data_read_the_last_row():
    exe = treadle.compile(
        ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32], i: Tensor[(m, 2), i64]) -> (Tensor[(m, 2), f32],):
        y = gather_elements(x, i, axis=1)
        return y
    """),
        threads=1,
    )
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    i = np.full((100_000, 2), 3)
    np.testing.assert_array_equal(exe(x, i)[2:], 7.0)
    np.testing.assert_array_equal(exe(x, i[:1]), [[3.0, 3.0]])
