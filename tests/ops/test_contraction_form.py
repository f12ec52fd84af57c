"""Contractions lower to the one form that schedules recognize: a plain sum of products of loads."""

import pytest

from treadle.expr.dtype import bf16, f16, f32
from treadle.expr.scalar import Apply, Const, Expr
from treadle.ir.op import Example, Op
from treadle.ir.tensor import Block, For, Load, Stmt, Store
from treadle.ops.contraction import Einsum, Matmul
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.passes.kinds import guarded_term

CONTRACTIONS = (Matmul, Einsum, Conv, ConvTranspose)


def blocks(body: tuple[Stmt, ...]) -> list[Block]:
    found: list[Block] = []
    for s in body:
        if isinstance(s, Block):
            found.append(s)
        elif isinstance(s, For):
            found.extend(blocks(s.body))
    return found


def samples():
    for cls in CONTRACTIONS:
        for op, examples in cls.samples():
            function = op.lower(*(e.type for e in examples))
            if function is not None:
                yield pytest.param(op, examples, id=f"{op}-{[str(e.type) for e in examples]}")


def reductions(op: Op, examples: tuple[Example, ...]) -> list[Block]:
    function = op.lower(*(e.type for e in examples))
    return [b for b in blocks(function.body) if any(i.kind == "reduce" for i in b.iters)]


def loaded(x: Expr) -> Load:
    """The load that a factor is, below a conversion."""
    if isinstance(x, Apply) and x.fn == "cast":
        x = x.args[0]
    assert isinstance(x, Load)
    return x


@pytest.mark.parametrize(("op", "examples"), list(samples()))
def test_the_reduction_is_a_sum_of_products_of_unmasked_loads(op, examples):
    found = reductions(op, examples)
    if isinstance(op, Einsum) and not found:
        return  # nothing is summed
    (block,) = found
    (start,), (step,) = block.init, block.body
    assert isinstance(start, Store)
    assert isinstance(start.value, Const)
    assert start.value.value == 0
    assert isinstance(step, Store)
    total, term = step.value.args
    border = guarded_term(term)
    term = term if border is None else border[1]
    assert step.value.fn == "add"
    assert total is Load(step.buffer, step.indices)
    assert start.indices == step.indices
    factors = term.args if isinstance(term, Apply) and term.fn == "mul" else (term,)
    assert len(factors) == 2 or isinstance(op, Einsum)
    assert all(loaded(x).mask is None for x in factors)
    assert block.where is None


@pytest.mark.parametrize(("op", "examples"), list(samples()))
def test_no_axis_of_a_grouped_convolution_has_one_element(op, examples):
    if getattr(op, "groups", 1) == 1:
        return
    (block,) = reductions(op, examples)
    batch, *rest = block.iters
    assert batch.kind == "spatial"
    channels = rest[: len(rest) - 2 * len(op.stride)]
    assert all(not isinstance(i.extent, Const) or i.extent.value > 1 for i in channels)


@pytest.mark.parametrize("dtype", [f16, bf16])
def test_narrow_floats_are_summed_in_f32(dtype):
    for op, examples in (*Matmul.samples(), *Conv.samples(), *ConvTranspose.samples()):
        if examples[0].type.dtype == dtype:
            (block,) = reductions(op, examples)
            assert block.body[0].buffer.dtype == f32
            break
    else:
        pytest.fail(f"no sample in {dtype}")


def test_a_convolution_without_padding_copies_nothing():
    op, examples = next(Conv.samples())
    assert not any(any(p) for p in op.padding)
    function = op.lower(*(e.type for e in examples))
    assert len(blocks(function.body)) == 1
