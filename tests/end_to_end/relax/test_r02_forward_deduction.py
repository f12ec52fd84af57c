"""Types are deduced forward, by one rule per operation, when a program is built and again after
every pass; what cannot be told falls back to a rank (Relax, arXiv 2311.02103, §4.1).
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.expr.dtype import f32
from treadle.expr.scalar import Var
from treadle.ir.graph import Value
from treadle.ir.types import tensor
from treadle.passes.deduce_types import deduce_types
from treadle.passes.pipeline import Pipeline, module_pass
from treadle.passes.recheck import check_deduced
from treadle.target import Target
from treadle.testing import assert_same_ir, ir, modules

FLATTEN = """
@graph.function
def main(x: Tensor[(n, 2, 2), f32], w: Tensor[(4, m), f32]) -> (Tensor[(n, m), f32],):
    flat = reshape(x, shape=(n * 4,))
    rows = reshape(flat, shape=(n, 4))
    y = matmul(rows, w)
    z = softmax(y, axis=-1)
    return z
"""


def test_dimensions_are_deduced_while_the_program_is_read():
    body = ir(FLATTEN).graph("main").body
    assert [str(b.outputs[0].type) for b in body] == [
        "Tensor[(n * 4,), f32]", "Tensor[(n, 4), f32]", "Tensor[(n, m), f32]",
        "Tensor[(n, m), f32]",
    ]  # fmt: skip


def test_the_types_of_a_program_can_be_deduced_again_after_every_pass():
    module = graph_pipeline().run(ir(FLATTEN), verify=True)
    loops = loop_pipeline(Target.parse("native"), 1).run(module, verify=True)
    check_deduced(loops.graph("main"), loops)


@given(modules())
@settings(deadline=None, max_examples=25)
def test_generated_programs_keep_their_types_through_all_passes(module):
    loops = loop_pipeline(Target.parse("native"), 1)
    loops.run(graph_pipeline().run(module, verify=True), verify=True)


def _with_wrong_type(module):
    """A pass that records another type than the operation gives."""
    f = module.graph("main")
    first = f.body[0]
    wrong = Value(first.outputs[0].name, tensor((Var("n") * 5,), f32))
    body = (
        replace_fields(first, outputs=(wrong,)),
        *(
            replace_fields(b, args=tuple(wrong if a is first.outputs[0] else a for a in b.args))
            for b in f.body[1:]
        ),
    )
    return module.with_functions([replace_fields(f, body=body)])


def test_a_pass_that_leaves_wrong_types_is_found_by_name():
    pipeline = Pipeline((replace(module_pass(_with_wrong_type), name="spoil"),))
    pipeline.run(ir(FLATTEN))
    with pytest.raises(InternalError, match="spoil"):
        pipeline.run(ir(FLATTEN), verify=True)


def test_where_dimensions_are_not_told_the_rank_is_and_dimensions_get_names(both):
    (y,) = both(
        """
@graph.function
def main(x: Tensor[ndim(2), f32]) -> (Tensor[ndim(2), f32],):
    a = relu(x)
    b = permute(a, axes=(1, 0))
    c = exp(b)
    return c
""",
        np.ones((2, 3), np.float32),
    )
    assert y.shape == (3, 2)


def test_a_program_of_ranks_runs_with_two_inputs_that_must_agree(both):
    (y,) = both(
        """
@graph.function
def main(x: Tensor[(n, 3), f32], y: Tensor[ndim(2), f32]) -> (Tensor[(n, 3), f32],):
    z = match_cast(y, type=Tensor[(n, 3), f32])
    w = add(x, z)
    return w
""",
        np.ones((2, 3), np.float32),
        np.ones((2, 3), np.float32),
    )
    assert y.shape == (2, 3)


def test_coarse_types_become_finer_when_operands_do():
    before = ir("""
@graph.function
def main(x: Tensor[(n, 3), f32]) -> (Tensor[ndim(2), f32],):
    a: Tensor[ndim(2), f32] = relu(x)
    b: Tensor[ndim(2), f32] = permute(a, axes=(1, 0))
    return b
""")
    after = ir("""
@graph.function
def main(x: Tensor[(n, 3), f32]) -> (Tensor[(3, n), f32],):
    a = relu(x)
    b = permute(a, axes=(1, 0))
    return b
""")
    assert_same_ir(deduce_types(before), after)
