import io
import math

import numpy as np
import pytest
from benchmarks.harness.measure import distance
from benchmarks.harness.report import disturbance, duration, means, summary, verdicts
from benchmarks.harness.result import Outcome, Row, geometric_mean
from benchmarks.works.work import Bar
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console


def row(bar=None, *, family="gemm", name="GEMM", flops=10**9, **outcomes):
    """A row on a machine of 100 GFLOP/s and 10 GB/s that touches 10^8 bytes."""
    return Row(family, name, bar or Bar(), "f32", flops, 10**8, 100.0, 10.0, outcomes)


def timed(*seconds, **others):
    return Outcome(samples=seconds, **others)


def test_the_speed_is_the_best_peers_time_over_ones_own():
    found = row(treadle=timed(1, 2, 3), torch=timed(4, 4, 4), openvino=timed(1, 3, 3))
    assert found.best_peer("median") == "openvino"
    assert found.speedup("treadle", "median") == 3 / 2
    assert found.speedup("treadle", "minimum") == 1
    assert found.speedup("torch", "median") == 3 / 4
    assert found.fair_speedup() == 3 / 2


def test_a_wrong_peer_is_not_the_best():
    found = row(treadle=timed(2.0), torch=timed(4.0), jax=timed(1.0, wrong=True))
    assert found.best_peer("median") == "torch"
    assert found.speedup("treadle", "median") == 2


def test_without_a_peer_there_is_no_speed():
    found = row(Bar(speedup=1.0), treadle=timed(2.0), jax=Outcome(failure="crashed"))
    assert found.speedup("treadle", "median") is None
    assert found.fair_speedup() is None
    assert found.missed() == []


def test_shares_of_the_peaks_come_from_the_minimum():
    found = row(treadle=timed(0.02, 0.05, 0.08))
    assert found.of_peak("treadle") == pytest.approx(0.5)
    assert found.of_copy("treadle") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("bar", "missed"),
    [
        (Bar(of_peak=0.5), []),
        (Bar(of_peak=0.51), ["50.0% of peak < 51%"]),
        (Bar(of_copy=0.85), ["50.0% of copy < 85%"]),
        (Bar(speedup=1.0), ["0.500× < 1.00×"]),
        (Bar(of_peak=0.9, speedup=1.0), ["50.0% of peak < 90%", "0.500× < 1.00×"]),
    ],
)
def test_a_bar_is_missed_part_by_part(bar, missed):
    assert row(bar, treadle=timed(0.02), torch=timed(0.01)).missed() == missed


def test_a_wrong_or_missing_result_misses_every_bar():
    assert row(treadle=timed(0.02, wrong=True)).missed() == ["wrong result"]
    assert row(treadle=Outcome(failure="killed by SIGSEGV")).missed() == ["no result"]
    assert row(torch=timed(1.0)).missed() == []


def test_the_mean_of_a_family_counts_only_when_it_is_complete():
    rows = [row(family="suite", treadle=timed(1.0), torch=timed(x)) for x in (1.0, 1.44)]
    assert means(rows) == {"suite": pytest.approx(1.2)}
    assert verdicts(rows, {"suite": False}) == []
    assert verdicts(rows, {"suite": True}) == ["suite: geometric mean 1.20× < 1.30×"]


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9), st.floats(0.1, 10))
def test_the_geometric_mean_lies_between_and_scales(values, factor):
    mean = geometric_mean(values)
    assert min(values) * (1 - 1e-9) <= mean <= max(values) * (1 + 1e-9)
    assert math.isclose(geometric_mean(x * factor for x in values), mean * factor)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(12.34, "12.3 s"), (0.0123, "12.3 ms"), (4.5e-5, "45 µs"), (3e-8, "30 ns")],
)
def test_a_duration_has_three_digits_and_its_unit(seconds, text):
    assert duration(seconds) == text


def test_the_distance_is_relative_to_the_largest_magnitude():
    expected = [np.array([1.0, -8.0], np.float32)]
    assert distance([np.array([1.0, -7.0], np.float32)], expected) == 1 / 8
    assert distance(expected, expected) == 0
    assert distance([np.array([1.0, np.nan])], expected) == math.inf
    assert distance([np.array([1.0])], expected) == math.inf
    assert distance([np.zeros(0)], [np.zeros(0)]) == 0


def test_the_summary_marks_wrong_failed_and_impossible():
    found = row(
        Bar(of_peak=0.9),
        name="GEMM 8x8x8",
        treadle=timed(0.02, wrong=True),
        torch=timed(0.01),
        onnxruntime=Outcome(failure="killed by SIGSEGV"),
        jax=Outcome(failure="not written in JAX", unsupported=True),
    )
    output = io.StringIO()
    Console(width=150, file=output).print(summary([found]))
    line = next(x for x in output.getvalue().splitlines() if "GEMM 8x8x8" in x)
    assert "20 ms! " in line
    assert " failed " in line
    assert " – " in line
    assert "90% peak" in line
    assert "missed" in line


def test_the_disturbance_is_what_others_took_on_average():
    quiet = row(treadle=timed(1.0, share=1.0), torch=timed(1.0, share=0.8))
    assert disturbance([quiet]) == pytest.approx(0.1)
    assert disturbance([]) == 0
