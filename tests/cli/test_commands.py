import numpy as np

import treadle
from treadle.ir.parser import parse_function


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def scaled(x):
    return softmax(x * np.array([1, 2, 3, 4], np.float32))


def test_version_is_that_of_the_package(cli):
    assert cli.ok("--version") == f"treadle {treadle.__version__}\n"


def test_compile_writes_an_artifact_that_loads_and_runs(cli):
    path = cli.folder / "out.treadle"
    assert "main(x: Tensor[(n, 4), f32])" in cli.ok("compile", cli.model, "-o", path)
    x = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(treadle.load(path, threads=1)(x), scaled(x), rtol=1e-6)


def test_a_bound_holds_when_the_artifact_runs(cli, tmp_path):
    path = tmp_path / "bounded.treadle"
    cli.ok("compile", cli.model, "-o", path, "--bound", "n=3", "--static-memory")
    cli.ok("run", path, "--dim", "n=3")
    assert "n <= 3" in cli.refused("run", path, "--dim", "n=4")


def test_compile_names_the_artifact_after_the_model(cli):
    cli.ok("compile", cli.model)
    assert (cli.folder / "scaled.treadle").is_file()


def test_run_takes_npy_files_in_order_and_writes_npz(cli):
    x = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    np.save(cli.folder / "x.npy", x)
    out = cli.folder / "out.npz"
    shown = cli.ok("run", cli.model, cli.folder / "x.npy", "-o", out)
    assert "(2, 4)" in shown
    with np.load(out) as found:
        np.testing.assert_allclose(found["z"], scaled(x), rtol=1e-6)


def test_run_takes_npz_files_by_name(cli):
    np.savez(cli.folder / "in.npz", x=np.zeros((5, 4), np.float32))
    assert "0.25, 0.25, 0.25, 0.25" in cli.ok("run", cli.model, cli.folder / "in.npz")


def test_random_inputs_are_the_same_for_the_same_seed(cli):
    first = cli.ok("run", cli.model, "--dim", "n=2", "--seed", 3)
    assert first == cli.ok("run", cli.model, "--input", "x=2x4", "--seed", 3)
    assert first != cli.ok("run", cli.model, "--dim", "n=2", "--seed", 4)


def test_an_artifact_is_a_model_too(cli):
    cli.ok("compile", cli.model)
    first = cli.ok("run", cli.model, "--dim", "n=2")
    assert first == cli.ok("run", cli.folder / "scaled.treadle", "--dim", "n=2")


def test_inspect_shows_signature_operations_and_memory(cli):
    shown = cli.ok("inspect", cli.model, "--dim", "n=8")
    assert "main(x: Tensor[(n, 4), f32]) -> Tensor[(n, 4), f32]" in shown
    assert "softmax" in shown
    assert "arena" in shown
    assert "add --dim n=8" in cli.ok("inspect", cli.model)


def test_inspect_lists_what_fast_numerics_approximate(cli, tmp_path):
    path = tmp_path / "layer.py"
    path.write_text(
        "@graph.function\n"
        "def main(x: Tensor[(1, 64, 58, 58), f32]) -> (Tensor[(1, 64, 56, 56), f32],):\n"
        "    w = full(shape=(64, 64, 3, 3), value=0.5, dtype=f32)\n"
        "    y = conv(x, w, stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1))\n"
        "    return y\n"
    )
    fast = ("--numerics", "fast", "--target", "x86-64-v3")
    assert "winograd F(" in cli.ok("inspect", path, *fast)
    assert "winograd" not in cli.ok("inspect", path)
    assert "winograd_input" in cli.ok("inspect", path, "--level", "loop", *fast)


def test_inspect_prints_programs_that_parse_at_every_level_above_llvm(cli):
    for level in ("loop", "device"):
        text = cli.ok("inspect", cli.model, "--level", level, "--function", "mul_softmax")
        assert str(parse_function(text)).strip() == text.strip()
    assert "softmax(y)" in cli.ok("inspect", cli.model, "--level", "graph")


def test_inspect_prints_llvm_and_assembly_of_one_kernel(cli):
    chosen = ("--function", "mul_softmax", "--target", "x86-64-v3")
    assert "define" in cli.ok("inspect", cli.model, "--level", "llvm", *chosen)
    assert "retq" in cli.ok("inspect", cli.model, "--level", "asm", *chosen)


def test_bench_without_a_peer_times_the_model(cli):
    shown = cli.ok("bench", cli.model, "--dim", "n=8", "--runs", 3, "--threads", 1)
    assert "Treadle" in shown
    assert "median" in shown


def test_explain_prints_the_page_of_a_code(cli):
    assert cli.ok("explain", "e0703").startswith("# E0703")
