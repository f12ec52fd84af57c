import json

import pytest

from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import CallSpec
from treadle_runtime.profile import Profile

CALLS = (
    CallSpec("k0", "matmul", "2*n*n", "3*n"),
    CallSpec("k1", "softmax", "5*n", "8*n"),
    CallSpec("k2", "matmul", "2*n*n", "3*n"),
)
RUNS = (((0, 1000), (1000, 1500), (1500, 3500)), ((9000, 12000), (12000, 12500), (12500, 14500)))


@pytest.fixture
def profile():
    return Profile("main", CALLS, {"n": 100}, RUNS, 5e-6)


def test_rows_sum_the_calls_of_a_label_and_average_the_runs(profile):
    matmul, softmax = profile.rows
    assert (matmul.label, matmul.calls, matmul.flops, matmul.bytes) == ("matmul", 2, 40000, 600)
    assert matmul.seconds == pytest.approx(4e-6)
    assert matmul.gflops == pytest.approx(10)
    assert softmax.bandwidth == pytest.approx(800 / 500)
    assert matmul.share + softmax.share == pytest.approx(1)


def test_the_table_is_aligned_and_complete(profile):
    assert str(profile) == (
        "kernel   calls  time us  GFLOP/s  GB/s  share\n"
        "-------  -----  -------  -------  ----  -----\n"
        "matmul       2     4.00     10.0   0.1  88.9%\n"
        "softmax      1     0.50      1.0   1.6  11.1%\n"
        "main at n = 100: 5.00 us a call, 4.50 us in kernels; mean of 2 runs"
    )


def test_an_entry_without_kernels_has_an_empty_table():
    empty = Profile("main", (), {}, ((),), 1e-6)
    assert empty.rows == ()
    assert "0.00 us in kernels" in str(empty)


def test_no_time_is_no_division_by_zero():
    still = Profile("main", CALLS[:1], {"n": 1}, (((5, 5),),), 0.0)
    assert (still.rows[0].gflops, still.rows[0].bandwidth, still.rows[0].share) == (0, 0, 0)


def test_the_trace_has_an_event_per_call_and_run(profile, tmp_path):
    profile.to_chrome_trace(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert len(events) == 6
    assert events[3]["name"] == "matmul"
    assert (events[3]["ts"], events[3]["dur"]) == (9.0, 3.0)
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_a_trace_that_cannot_be_written_is_told(profile, tmp_path):
    with pytest.raises(RuntimeFault, match="E0710"):
        profile.to_chrome_trace(tmp_path / "none" / "t.json")
    with pytest.raises(RuntimeFault, match="E0710"):
        profile.to_chrome_trace(tmp_path)
