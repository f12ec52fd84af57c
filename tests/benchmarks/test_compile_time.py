import io

import pytest
from benchmarks.harness.compile_time import Compilation, compile_table
from benchmarks.harness.result import Outcome
from rich.console import Console


def compilation(cold, warm, name="compile ResNet-50"):
    return Compilation(name, {"treadle": compiled(cold)}, {"treadle": compiled(warm)})


def compiled(seconds):
    return Outcome(stages={"export": 100.0, "compile": seconds, "first call": 100.0})


@pytest.mark.parametrize(
    ("cold", "warm", "missed"),
    [
        (20.0, 1.0, []),
        (20.2, 0.5, ["cold 20.2 s > 20 s"]),
        (3.0, 1.25, ["warm 1.25 s > 1 s"]),
        (30.0, 2.0, ["cold 30.0 s > 20 s", "warm 2.00 s > 1 s"]),
    ],
)
def test_only_the_compilers_own_time_counts(cold, warm, missed):
    assert compilation(cold, warm).missed() == missed


def test_a_model_without_a_limit_has_only_the_warm_one():
    assert compilation(99.0, 0.5, "compile other").missed() == []


def test_a_failed_compilation_misses():
    failed = {"treadle": Outcome(failure="killed by SIGSEGV")}
    assert Compilation("compile ResNet-50", failed, failed).missed() == ["no result"]


def test_the_table_has_a_line_for_each_backend():
    one = compilation(12.0, 0.5)
    failed = Outcome(failure="no answer after 9 s")
    both = Compilation(one.name, {**one.cold, "jax": failed}, {**one.warm, "jax": failed})
    output = io.StringIO()
    Console(width=150, file=output).print(compile_table([both]))
    ours, peer = [x for x in output.getvalue().splitlines() if "treadle" in x or "jax" in x]
    assert "12 s" in ours
    assert "500 ms" in ours
    assert "no answer after 9 s" in peer
