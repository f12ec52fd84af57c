"""Shapes of parts and gradients while dimensions are symbols; misfits are refused."""

import pytest

from treadle.base.errors import TypeMismatch
from treadle.expr.dtype import boolean, f32, i32
from treadle.expr.scalar import Var
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.op import Op, example
from treadle.ops._shapes import same_dims
from treadle.ops.adaptive_pool import AdaptiveAvgPool, AdaptiveMaxPool
from treadle.ops.attention import Attention
from treadle.ops.channel_norm import BatchNorm, GroupNorm, InstanceNorm, Lrn
from treadle.ops.columns import Col2im, Im2col
from treadle.ops.contraction import Einsum, Matmul
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.ops.grid_sample import GridSample
from treadle.ops.normalize import LayerNorm, RmsNorm, Softmax
from treadle.ops.pool import AvgPool, LpPool, MaxPool, MaxUnpool
from treadle.ops.resize import Resize

N, H, W = Var("n"), Var("h"), Var("w")
NONE, SAME = (0, 0), (1, 1)


def f(*dims):
    return example(f32, *dims)


IMAGE, ANY = f("n", 3, "h", "w"), f("n", "c", "h", "w")
QUERY = f("n", 4, "s", 8)

SYMBOLIC = (
    (Attention(causal=True), (QUERY, f("n", 2, "t", 8), f("n", 2, "t", 8))),
    (Attention(), (QUERY, f("n", 4, "t", 8), f("n", 4, "t", 8), f("s", "t"))),
    (
        Attention(),
        (QUERY, f("n", 2, "t", 8), f("n", 2, "t", 8), example(boolean, "n", 1, "s", "t")),
    ),
    (Attention(), (f("n", "s", "d"), f("n", "t", "d"), f("n", "t", "e"))),
    (Conv((1, 1), (SAME, SAME), (1, 1)), (IMAGE, f(4, 3, 3, 3), f(4))),
    (Conv((2, 2), (SAME, SAME), (1, 1), 3), (IMAGE, f(6, 1, 3, 3), f(6))),
    (Conv((3,), ((2, 0),), (2,)), (f("n", 3, "h"), f(4, 3, 2))),
    (ConvTranspose((2, 2), (SAME, SAME), (0, 0), (1, 1)), (IMAGE, f(3, 4, 3, 3), f(4))),
    (ConvTranspose((2,), (SAME,), (1,), (1,)), (f("n", 3, "h"), f(3, 4, 3))),
    (Im2col((3,), (2,), (SAME,), (1,)), (f("n", "c", "h"),)),
    (MaxPool((3, 3), (2, 2), (SAME, SAME), (1, 1)), (IMAGE,)),
    (MaxPool((3,), (2,), (SAME,), (1,), ceil_mode=True), (f("n", "c", "h"),)),
    (AvgPool((3, 3), (2, 2), (SAME, SAME)), (ANY,)),
    (AvgPool((3, 3), (2, 2), (SAME, SAME), True, False), (ANY,)),
    (AvgPool((3, 3), (2, 2), (SAME, SAME), True, True), (ANY,)),
    (LpPool((3, 3), (2, 2), (SAME, SAME)), (ANY,)),
    (AdaptiveAvgPool((7, 7)), (ANY,)),
    (AdaptiveMaxPool((7, 7)), (ANY,)),
    (Resize((N, 3, H * 2, W * 2), None, "linear"), (IMAGE,)),
    (Resize((N, 3, H * 2, W * 2), None, "cubic", antialias=True), (IMAGE,)),
    (Resize((N, 3, 64, 64), None, "linear", antialias=True), (IMAGE,)),
    (LayerNorm(-1), (f("n", "s", "d"), f("d"), f("d"))),
    (RmsNorm(-1), (f("n", "s", "d"), f("d"))),
    (GroupNorm(2), (f("n", 4, "h", "w"), f(4), f(4))),
    (InstanceNorm(), (ANY, f("c"), f("c"))),
    (BatchNorm(), (ANY, f("c"), f("c"), f("c"), f("c"))),
    (Lrn(5), (ANY,)),
    (Softmax(1), (ANY,)),
    (Matmul(), (f("n", "s", "d"), f("d", 5))),
    (Matmul(), (f("n", "s", "d"), f("n", "d", "t"))),
    (Einsum("bsd,dhk->bhsk"), (f("b", "s", "d"), f("d", "h", "k"))),
    (Einsum("ij,jk,kl->il"), (f("n", 3), f(3, "m"), f("m", "n"))),
)


def applied(op: Op, examples) -> tuple[GraphBuilder, tuple[Traced, ...], tuple[Traced, ...]]:
    builder = GraphBuilder("main")
    args = tuple(builder.input(f"x{k}", e.type) for k, e in enumerate(examples))
    return builder, args, builder.emit_all(op, *args)


@pytest.mark.parametrize(("op", "examples"), SYMBOLIC, ids=lambda x: str(x)[:60])
def test_parts_have_the_shape_of_the_whole(op, examples):
    _, args, outs = applied(op, examples)
    function = op.lower(*(a.type for a in args))
    if function is None:
        parts = op.decompose(*args)
        assert same_dims(parts.shape, outs[0].shape)
        assert parts.dtype == outs[0].dtype
    else:
        assert [b.shape for b in function.output_buffers] == [y.shape for y in outs]


@pytest.mark.parametrize(("op", "examples"), SYMBOLIC, ids=lambda x: str(x)[:60])
def test_gradients_have_the_shapes_of_the_operands(op, examples):
    builder, args, outs = applied(op, examples)
    douts = tuple(builder.input(f"dy{k}", y.type) for k, y in enumerate(outs))
    for x, dx in zip(args, op.vjp(args, outs, douts), strict=True):
        if x.dtype == boolean:
            assert dx is None
        else:
            assert same_dims(x.shape, dx.shape)
            assert x.dtype == dx.dtype


UNIT = ((1, 1), (NONE, NONE), (1, 1))

MISFITS = (
    ("E0101", Matmul(), (f(2, 3),)),
    ("E0102", Matmul(), (f(2, 3), example(i32, 3, 2))),
    ("E0105", Matmul(), (f(2, 2, 3), f(4, 3, 2))),
    ("E0106", Matmul(), (f(2, 3), f(4, 2))),
    ("E0107", Matmul(), (f(), f(4))),
    ("E0108", Einsum("ij,jk"), (f(2, 3),)),
    ("E0108", Einsum("ijk->i"), (f(2, 3),)),
    ("E0108", Einsum("ij->k"), (f(2, 3),)),
    ("E0105", Einsum("ij,ij"), (f(2, 3), f(2, 4))),
    ("E0106", Conv(*UNIT), (f(1, 3, 4, 4), f(2, 4, 2, 2))),
    ("E0108", Conv(*UNIT), (f(1, 3, 4, 4), f(2, 3, 5, 5))),
    ("E0108", Conv(*UNIT, 2), (f(1, 4, 4, 4), f(3, 2, 2, 2))),
    ("E0108", Conv((1,), (NONE,), (1,)), (f(1, 3, 4, 4), f(2, 3, 2, 2))),
    ("E0106", Conv(*UNIT), (f(1, 3, 4, 4), f(2, 3, 2, 2), f(3))),
    ("E0106", ConvTranspose((1,), (NONE,), (0,), (1,)), (f(1, 3, 4), f(2, 3, 2))),
    ("E0106", Col2im((4,), (2,), (1,), (NONE,), (1,)), (f(1, 4, 4),)),
    ("E0107", MaxPool((2,), (2,), (NONE,), (1,)), (f(2, 3, 4, 5),)),
    ("E0108", MaxPool((2,), (0,), (NONE,), (1,)), (f(2, 3, 4),)),
    ("E0103", AvgPool((2,), (2,), (NONE,)), (example(i32, 2, 3, 4),)),
    ("E0103", MaxUnpool((4,)), (f(1, 1, 2), f(1, 1, 2))),
    ("E0108", Resize((2, 3), mode="bilinear"), (f(2, 3),)),
    ("E0108", Resize((2, 3, 4)), (f(2, 3),)),
    ("E0106", GridSample(), (f(1, 2, 3, 4), f(1, 5, 6, 3))),
    ("E0104", Softmax(2), (f(2, 3),)),
    ("E0106", LayerNorm(-1), (f(2, 3), f(4))),
    ("E0108", GroupNorm(2), (f(1, 3, 4),)),
    ("E0106", BatchNorm(), (f(1, 3, 4), f(3), f(3), f(3), f(4))),
    ("E0108", Attention(), (f(1, 4, 2, 3), f(1, 3, 2, 3), f(1, 3, 2, 3))),
    ("E0106", Attention(), (f(2, 3), f(4, 5), f(4, 5))),
)


@pytest.mark.parametrize(("code", "op", "examples"), MISFITS)
def test_operands_that_do_not_fit_are_refused(code, op, examples):
    with pytest.raises(TypeMismatch) as caught:
        op.infer(*(e.type for e in examples))
    assert caught.value.code == code
    assert caught.value.message.startswith(op.op_name())
