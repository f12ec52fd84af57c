"""Models in PyTorch's and ONNX's files: run, and timed beside the peers that read the same file."""

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

ONNX_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
main (float[n, 4] x) => (float[n, 4] y) { y = Softmax<axis = -1>(x) }
"""


@pytest.fixture
def onnx_model(cli):
    path = cli.folder / "softmax.onnx"
    onnx.save(onnx.parser.parse_model(ONNX_TEXT), path)
    return path


@pytest.fixture
def exported_program(cli):
    path = cli.folder / "linear.pt2"
    model = torch.nn.Linear(4, 2).eval()
    batch = torch.export.Dim("batch", max=64)
    x = torch.randn(3, 4)
    torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: batch},)), path)
    return path, model


def test_an_onnx_file_runs(cli, onnx_model):
    out = cli.folder / "out.npz"
    cli.ok("run", onnx_model, "--dim", "n=3", "-o", out)
    with np.load(out) as found:
        (y,) = (found[name] for name in found.files)
    np.testing.assert_allclose(y.sum(-1), np.ones(3), rtol=1e-6)


def test_an_onnx_file_is_timed_beside_onnx_runtime(cli, onnx_model):
    shown = cli.ok("bench", onnx_model, "--dim", "n=3", "--runs", 2, "--threads", 1)
    assert "ONNX Runtime" in shown
    assert "×" in shown


def test_an_exported_program_runs_like_the_module(cli, exported_program):
    path, model = exported_program
    x = torch.randn(5, 4)
    np.save(cli.folder / "x.npy", x.numpy())
    cli.ok("run", path, cli.folder / "x.npy", "-o", cli.folder / "out.npz")
    with np.load(cli.folder / "out.npz") as found:
        (y,) = (found[name] for name in found.files)
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach())


def test_an_exported_program_is_timed_beside_pytorch(cli, exported_program):
    path, _ = exported_program
    shown = cli.ok("bench", path, "--input", "input=3x4", "--runs", 2, "--threads", 1)
    assert "PyTorch eager" in shown


def test_a_cut_onnx_file_is_refused_and_leaves_nothing(cli, onnx_model):
    onnx_model.write_bytes(onnx_model.read_bytes()[:-9])
    message = cli.refused("compile", onnx_model, "-o", cli.folder / "out.treadle")
    assert message.startswith("E0612: ")
    assert not (cli.folder / "out.treadle").exists()


def test_a_cut_exported_program_is_refused(cli, exported_program):
    path, _ = exported_program
    path.write_bytes(path.read_bytes()[:-200])
    assert cli.refused("run", path).startswith("E0615: ")


def test_an_unknown_operator_is_refused_by_name(cli, onnx_model):
    text = ONNX_TEXT.replace("Softmax<axis = -1>", "NoSuchOperator")
    onnx.save(onnx.parser.parse_model(text), onnx_model)
    message = cli.refused("compile", onnx_model)
    assert message.startswith("E0601: ")
    assert "NoSuchOperator" in message


def test_an_artifact_cut_anywhere_is_refused(cli):
    cli.ok("compile", cli.model)
    path = cli.folder / "scaled.treadle"
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 12):
        path.write_bytes(whole[:size])
        assert cli.refused("run", path, "--dim", "n=2")[:5] in ("E0712", "E0713")


def test_results_are_written_under_the_names_of_the_model(cli):
    names = ("input.1", "/head/probabilities:0", "file")
    x, *results = [onnx.helper.make_tensor_value_info(n, 1, ["n", 4]) for n in names]
    nodes = [onnx.helper.make_node("Softmax", [names[0]], [n]) for n in names[1:]]
    path = cli.folder / "m.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], results)), path)
    np.savez(cli.folder / "in.npz", **{"input.1": np.zeros((2, 4), np.float32)})
    cli.ok("run", path, cli.folder / "in.npz", "-o", cli.folder / "out.npz")
    with np.load(cli.folder / "out.npz") as found:
        assert set(found.files) == set(names[1:])
        for name in names[1:]:
            np.testing.assert_allclose(found[name], np.full((2, 4), 0.25))
