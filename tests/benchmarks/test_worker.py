import io
import json
import sys

import numpy as np
import pytest
from benchmarks.backends.backend import Job, Prepared, Unsupported, store, stored
from benchmarks.harness.author import Author
from benchmarks.harness.child import Child, ChildError
from benchmarks.harness.worker import Session, burst, repeats, serve

import treadle


class Doubler:
    """A backend that doubles, and knows only one kernel."""

    version = "2.0"

    def prepare(self, job: Job) -> Prepared:
        if job.kernel != "double":
            raise Unsupported("only doubles")
        x = np.arange(3.0)
        return Prepared(lambda: 2 * x, lambda y: [y], {"compile": 0.5}, lambda: "all in one")


@pytest.fixture
def hook():
    before = sys.excepthook
    yield
    sys.excepthook = before


def answers_to(*requests):
    output = io.StringIO()
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    serve(lambda: Session(Doubler()), io.StringIO(lines), output)
    return [json.loads(line) for line in output.getvalue().splitlines()]


def job(kernel, folder):
    return {"family": "rows", "name": kernel, "kernel": kernel, "folder": folder, "threads": 1}


@pytest.mark.usefixtures("hook")
def test_a_worker_prepares_runs_and_stores(tmp_path):
    result = str(tmp_path / "result.npz")
    prepare = {"do": "prepare", "result": result, **job("double", str(tmp_path))}
    hello, prepared, samples, memory, profile = answers_to(
        {"do": "hello"},
        prepare,
        {"do": "burst", "seconds": 0.001},
        {"do": "memory"},
        {"do": "profile"},
    )
    assert hello == {"version": "2.0"}
    assert prepared["seconds"]["compile"] == 0.5
    assert prepared["seconds"]["first call"] > 0
    assert min(samples["samples"]) > 0
    assert samples["wall"] >= 0.001
    assert memory["bytes"] >= 0
    assert profile == {"text": "all in one"}
    np.testing.assert_array_equal(stored(result)[0], [0, 2, 4])


@pytest.mark.usefixtures("hook")
def test_a_work_that_a_backend_cannot_express_is_no_error(tmp_path):
    (answer,) = answers_to({"do": "prepare", "result": "", **job("triple", str(tmp_path))})
    assert answer == {"unsupported": "only doubles"}


@pytest.mark.usefixtures("hook")
def test_an_error_ends_the_worker_with_its_first_line():
    output = io.StringIO()
    serve(lambda: Session(Doubler()), io.StringIO(""), output)
    error = ValueError("wrong shape\nmore about it")
    sys.excepthook(ValueError, error, None)
    assert json.loads(output.getvalue()) == {"error": "ValueError: wrong shape"}


def test_short_calls_are_repeated_within_a_sample():
    calls = []
    inner = repeats(lambda: calls.append(1))
    assert inner > 10
    samples = burst(lambda: calls.append(1), 0.002, inner)
    assert max(samples) < 1e-3
    assert len(calls) > inner * len(samples)


def test_a_burst_has_a_sample_however_short_it_is():
    assert len(burst(lambda: None, 0.0, 1)) >= 1


def test_arrays_are_stored_and_found_again_in_order(tmp_path):
    path = tmp_path / "arrays.npz"
    store(path, [np.arange(3), np.ones((2, 2), np.float32)])
    first, second = stored(path)
    assert first.tolist() == [0, 1, 2]
    assert second.shape == (2, 2)


def test_the_author_writes_inputs_results_and_facts(tmp_path):
    facts = Author().write("suite", "GMM 128x128x128", str(tmp_path), onnx=False)
    assert facts["flops"] == 2 * 128**3
    assert facts["bytes"] == 3 * 4 * 128**2
    request = Job("suite", "GMM 128x128x128", "matmul", str(tmp_path), 1)
    x, y = request.inputs()
    (expected,) = stored(tmp_path / "expected.npz")
    np.testing.assert_allclose(x @ y, expected, rtol=1e-4, atol=1e-4)
    assert not request.onnx.exists()


@pytest.fixture
def machine(tmp_path):
    folder = {"PYTHONPATH": str(next(iter(treadle.__path__)) + "/..")}
    child = Child("benchmarks.harness.machine", ["--cores", "[0]"], folder, tmp_path / "log")
    yield child
    child.stop()


def test_a_child_answers_stands_still_and_ends_on_an_error(machine):
    assert machine.ask("copy", touched=2**16)["gbytes"] > 0
    assert machine.ask("peak", kind="f32")["gflops"] > 0
    with pytest.raises(ChildError, match="AttributeError"):
        machine.ask("dance")
    assert not machine.alive


def test_a_child_that_is_killed_or_late_is_an_error(machine):
    machine.ask("copy", touched=2**16)
    with pytest.raises(ChildError, match="no answer after 0 s"):
        machine.ask("copy", limit=0.0, touched=2**28)
    with pytest.raises(ChildError, match="killed by SIGKILL"):
        machine.ask("copy", touched=2**16)
