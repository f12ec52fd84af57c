"""Passes run once, in one order, each on a level that the ones before it left (Relax, arXiv
2311.02103, §4, Fig. 13).
"""

import pytest

from treadle.base.errors import InternalError
from treadle.driver.pipelines import graph_pipeline, loop_pipeline, lower_pipeline
from treadle.ir.level import Level
from treadle.passes.pipeline import Pipeline
from treadle.target import Target

STAGES = ("legalize", "fuse", "apply_schedules", "lift_workspace")


def names(pipeline: Pipeline) -> list[str]:
    return [step.name for step in pipeline.passes]


def test_libraries_then_loops_then_fusion_then_workspaces():
    order = names(graph_pipeline()) + names(loop_pipeline(Target.parse("native"), 1))
    places = [order.index(name) for name in ("lower_libraries", "decompose", *STAGES)]
    assert places == sorted(places)
    assert order.index("inline") < order.index("resolve_casts") < order.index("legalize")


def test_the_passes_that_make_loops_run_once():
    order = names(loop_pipeline(Target.parse("native"), 1))
    assert all(order.count(name) == 1 for name in STAGES)


def test_a_pipeline_in_an_impossible_order_cannot_be_built():
    passes = loop_pipeline(Target.parse("native"), 1).passes
    fuse = next(p for p in passes if p.name == "fuse")
    legalize = next(p for p in passes if p.name == "legalize")
    Pipeline((legalize, fuse))
    with pytest.raises(InternalError, match="legalize"):
        Pipeline((fuse, legalize))


def test_each_pass_takes_the_level_that_the_ones_before_leave():
    level = Level.GRAPH
    everything = (graph_pipeline(), loop_pipeline(Target.parse("native"), 1), lower_pipeline())
    for step in (p for pipeline in everything for p in pipeline.passes):
        assert step.reads >= level
        level = step.writes
    assert level is Level.DEVICE
