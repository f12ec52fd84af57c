"""What operations refuse, and with which code."""

import pytest

from treadle import ops
from treadle.base.errors import TypeMismatch
from treadle.expr.dtype import boolean, f16, f32, i64
from treadle.expr.scalar import Var
from treadle.ir.types import tensor

n, m = Var("n"), Var("m")
x23, x3, x32 = tensor((2, 3), f32), tensor((3,), f32), tensor((3, 2), f32)
ints, bools, scalar = tensor((3,), i64), tensor((3,), boolean), tensor((), f32)
pages, rows = tensor((5, 2, 4, 8), f32), tensor((3, 2, 8), f32)
keys, table = tensor((5, 2, 8, 4), f32), tensor((2, 6), i64)

REFUSED = [
    ("E0101", ops.Exp(), (x3, x3)),
    ("E0101", ops.Add(), (x3,)),
    ("E0101", ops.Concat(0), ()),
    ("E0101", ops.Full((2,), 0, f32), (x3,)),
    ("E0102", ops.Add(), (x3, tensor((3,), f16))),
    ("E0102", ops.Where(), (bools, x3, ints)),
    ("E0102", ops.ScatterElements(0), (x3, ints, ints)),
    ("E0102", ops.Concat(0), (x3, ints)),
    ("E0103", ops.Exp(), (ints,)),
    ("E0103", ops.Add(), (bools, bools)),
    ("E0103", ops.LogicalAnd(), (ints, ints)),
    ("E0103", ops.ShiftLeft(), (bools, bools)),
    ("E0103", ops.Where(), (x3, x3, x3)),
    ("E0103", ops.Sum((0,)), (bools,)),
    ("E0103", ops.Any((0,)), (ints,)),
    ("E0103", ops.Mean((0,)), (ints,)),
    ("E0103", ops.Gather(0), (x23, x3)),
    ("E0103", ops.RandomNormal((2,), i64), ()),
    ("E0103", ops.ScatterElements(0, "add"), (bools, ints, bools)),
    ("E0103", ops.Arange(0, 2, 1, boolean), ()),
    ("E0103", ops.Bitcast(i64), (x3,)),
    ("E0104", ops.Sum((2,)), (x23,)),
    ("E0104", ops.Sum((1, -1)), (x23,)),
    ("E0104", ops.ArgMax(-3), (x23,)),
    ("E0104", ops.CumSum(0), (scalar,)),
    ("E0104", ops.Permute((0, 0)), (x23,)),
    ("E0104", ops.Permute((0,)), (x23,)),
    ("E0104", ops.Slice(2, 0, 1), (x23,)),
    ("E0104", ops.Sort(1), (x3,)),
    ("E0105", ops.Add(), (x23, x32)),
    ("E0105", ops.Add(), (tensor((n,), f32), tensor((m,), f32))),
    ("E0105", ops.Add(), (tensor((n,), f32), x3)),
    ("E0105", ops.Expand((2, 4)), (x3,)),
    ("E0105", ops.Expand((3,)), (x23,)),
    ("E0106", ops.Max((0,)), (tensor((0, 2), f32),)),
    ("E0106", ops.ArgMin(1), (tensor((2, 0), f32),)),
    ("E0106", ops.Concat(0), (x23, x32)),
    ("E0106", ops.ScatterElements(0), (x3, ints, tensor((2,), f32))),
    ("E0106", ops.ScatterNd(), (x23, tensor((1, 1), i64), tensor((1, 2), f32))),
    ("E0106", ops.GatherNd(), (x23, tensor((1, n), i64))),
    ("E0107", ops.GatherElements(0), (x23, ints)),
    ("E0107", ops.GatherNd(), (x3, tensor((1, 2), i64))),
    ("E0107", ops.Concat(0), (x23, x3)),
    ("E0107", ops.Triangular(True), (x3,)),
    ("E0107", ops.Pad(((0, 1),)), (x23,)),
    ("E0107", ops.Tile((2,)), (x23,)),
    ("E0107", ops.OneHot(3), (ints, x3, scalar)),
    ("E0108", ops.Slice(0, 2, 1), (x3,)),
    ("E0108", ops.Slice(0, 0, 4), (x3,)),
    ("E0108", ops.Slice(0, 0, 3, 0), (x3,)),
    ("E0108", ops.Pad(((-2, -2),)), (x3,)),
    ("E0108", ops.Pad(((1, 1),), "reflect"), (tensor((0,), f32),)),
    ("E0108", ops.Roll((1, 2), (0,)), (x3,)),
    ("E0108", ops.Tile((-1,)), (x3,)),
    ("E0108", ops.Arange(0, 3, 0, i64), ()),
    ("E0108", ops.Arange(0.5, n, 1, f32), ()),
    ("E0108", ops.TopK(4), (x3,)),
    ("E0108", ops.Celu(0.0), (x3,)),
    ("E0108", ops.RandomNormal((2,), f32, std=-1.0), ()),
    ("E0102", ops.WritePages(), (pages, tensor((3, 2, 8), f16), ints)),
    ("E0103", ops.WritePages(), (pages, rows, x3)),
    ("E0106", ops.WritePages(True), (pages, rows, ints)),
    ("E0106", ops.WritePages(), (pages, tensor((2, 2, 8), f32), ints)),
    ("E0107", ops.WritePages(), (pages, x23, ints)),
    ("E0101", ops.PagedAttention(), (rows, keys, pages, table, ints)),
    ("E0102", ops.PagedAttention(), (rows, keys, pages, table, ints, ints, tensor((2,), f16))),
    ("E0103", ops.PagedAttention(), (rows, keys, pages, x23, ints, ints)),
    ("E0106", ops.PagedAttention(), (rows, pages, pages, table, ints, ints)),
    ("E0106", ops.PagedAttention(), (tensor((3, n, 8), f32), keys, pages, table, ints, ints)),
    ("E0107", ops.PagedAttention(), (x23, keys, pages, table, ints, ints)),
    ("E0108", ops.PagedAttention(), (tensor((3, 3, 8), f32), keys, pages, table, ints, ints)),
    ("E0108", ops.PagedAttention(window=0), (rows, keys, pages, table, ints, ints)),
    ("E0108", ops.PagedAttention(softcap=-1.0), (rows, keys, pages, table, ints, ints)),
    ("E0109", ops.Reshape((2, 2)), (x23,)),
    ("E0109", ops.Reshape((n, 2)), (tensor((m, 2), f32),)),
    ("E0109", ops.Reshape((n + 1,)), (tensor((n,), f32),)),
    ("E0103", ops.CountTrue(), (ints,)),
    ("E0107", ops.Compact(2), (tensor((2, 3), boolean), ints)),
    ("E0103", ops.Unravel((2, 3)), (x3,)),
    ("E0104", ops.Unique(2), (x23,)),
    ("E0108", ops.Unique(consecutive=True), (x3,)),
    ("E0107", ops.SortRows(), (x3,)),
    ("E0107", ops.RunStarts(), (scalar,)),
    ("E0103", ops.RunLengths(3), (x3,)),
    ("E0103", ops.RepeatEach(), (x3,)),
    ("E0107", ops.RepeatEach(), (tensor((2, 3), i64),)),
    ("E0106", ops.NonMaxSuppression(), (rows, rows, tensor((), i64), scalar)),
    ("E0103", ops.NonMaxSuppression(), (tensor((1, 3, 4), f32), rows, scalar, scalar)),
]


@pytest.mark.parametrize(("code", "op", "types"), REFUSED)
def test_operands_that_do_not_fit_are_refused(code, op, types):
    with pytest.raises(TypeMismatch) as caught:
        op.infer(*types)
    assert caught.value.code == code
    assert caught.value.message.startswith(f"{op.op_name()}: ")


@pytest.mark.parametrize(
    "op", [ops.Gelu("fast"), ops.Pad(((0, 0),), "mirror")], ids=lambda op: op.op_name()
)
def test_a_word_that_a_field_does_not_know_is_refused(op):
    with pytest.raises(TypeMismatch) as caught:
        op.infer(x3)
    assert caught.value.code == "E0108"


def test_an_op_without_gradient_says_so():
    with pytest.raises(TypeMismatch, match="equal has no gradient"):
        ops.Equal().vjp((), (), ())
