"""Compile a small PyTorch model for any batch size, run it, look inside, save it, load it.

python examples/quickstart.py
"""

import tempfile
from pathlib import Path

import torch

import treadle


def main() -> None:
    """Run the whole example."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 128), torch.nn.GELU(), torch.nn.Linear(128, 8)
    model = torch.nn.Sequential(*layers).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)

    exe = treadle.compile(model, (torch.randn(4, 64),), dynamic_shapes=({0: batch},))
    print(exe.signature)
    for size in (1, 7, 300):
        x = torch.randn(size, 64)
        with torch.no_grad():
            torch.testing.assert_close(exe(x), model(x))
    print("batches of 1, 7 and 300 match PyTorch")

    # NumPy in, NumPy out; the input's memory is shared, not copied.
    result = exe(torch.randn(2, 64).numpy())
    print(f"a NumPy array gives a {type(result).__name__} of shape {result.shape}")

    print(exe.module)
    print(exe.profile(torch.randn(300, 64)))
    print(exe.memory(batch=300))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.treadle"
        exe.save(path)
        again = treadle.load(path)
        x = torch.randn(5, 64)
        assert torch.equal(again(x), exe(x))
        print(f"saved, {path.stat().st_size / 1024:.0f} KiB, and loaded")

    # A mistake is explained.
    try:
        exe(torch.randn(5, 63))
    except treadle.TreadleError as error:
        print(error)


if __name__ == "__main__":
    main()
