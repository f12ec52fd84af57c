"""No default schedule is refused: one that is leaves code that may be a hundred times slower."""

import logging
from importlib import import_module
from types import ModuleType

import pytest
from benchmarks.works import suite

from treadle.driver.options import make_options
from treadle.driver.pipelines import graph_pipeline, loop_pipeline
from treadle.frontend.torch import import_module as from_torch
from treadle.ir.module import Module

ONE_OF_EACH = {
    "C1D 256 64->128 k3 s2",
    "C2D 14x14 256->256 k3 s1",
    "C3D 16x56x56 64->64 k1 s1",
    "DIL 56x56 64->64 k1 s1",
    "GRP 56x56 64->128 k3 s2",
    "GRP 14x14 256->256 k3 s1",
    "DEP 112x112 64->64 k3 s2",
    "T2D 16x16 128->64",
    "CAP 8x8 16->16 s1",
    "CBR 28x28 128->256 k1 s2",
    "GMM 128x128x128",
    "TBG 128x12x128",
    "NRM 256x256",
    "SFM 256x256",
}
"""Where each rule applies: the others of a family take the same ones."""
MODELS = ("resnet18", "mobilenetv2", "efficientnet_b0", "vit_b16", "bert_base", "gpt2_small")
TARGET = "x86-64-v4"


@pytest.fixture(scope="module")
def zoo() -> ModuleType:
    return import_module("benchmarks.common.zoo")  # slow: only where it is needed


def refused(module: Module, threads: int, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of schedules that do not apply."""
    target = make_options(TARGET, "default", threads, False).target
    with caplog.at_level(logging.INFO, "treadle.tune"):
        loop_pipeline(target, threads).run(module)
    return [r.getMessage() for r in caplog.records if r.name == "treadle.tune"]


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(w, id=w.name, marks=() if w.name in ONE_OF_EACH else pytest.mark.slow)
        for w in suite.WORKS
    ],
)
def test_no_default_schedule_of_an_operator_is_refused(work, caplog):
    case = work.build()
    module = graph_pipeline().run(from_torch(case.module, case.inputs, None).module)
    for threads in (1, 2):
        assert refused(module, threads, caplog) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_no_default_schedule_of_a_model_is_refused(name, zoo, caplog):
    entry = zoo.ZOO[name](tiny=True)
    module = from_torch(entry.model, entry.inputs, entry.dynamic_shapes).module
    module = graph_pipeline().run(module)
    for threads in (1, 2):
        assert refused(module, threads, caplog) == []
