"""Matrix products in bfloat16 and in bytes, beside the peaks of their own instructions."""

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .work import Bar, Case, Work

SIZE = 1024


class BrainProduct(nn.Module):
    """bf16 × bf16, summed in f32, rounded to bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter((torch.randn(SIZE, SIZE) / SIZE**0.5).bfloat16())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return x @ self.weight


class ByteProduct(nn.Module):
    """u8 × s8, summed exactly in 32-bit integers."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(-127, 128, (SIZE, SIZE), dtype=torch.int8)
        self.register_buffer("weight", weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return x.to(torch.int32) @ self.weight.to(torch.int32)


def _bytes_case() -> Case:
    module = ByteProduct()
    weight = module.weight.numpy()

    def write(path: Path) -> None:
        node = helper.make_node("MatMulInteger", ["x", "weight"], ["y"])
        graph = helper.make_graph(
            [node],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [SIZE, SIZE])],
            [helper.make_tensor_value_info("y", TensorProto.INT32, [SIZE, SIZE])],
            [numpy_helper.from_array(weight, "weight")],
        )
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)

    return Case(module, (torch.randint(0, 256, (SIZE, SIZE), dtype=torch.uint8),), write)


WORKS = (
    Work(
        "low",
        f"GEMM bf16 {SIZE}x{SIZE}x{SIZE}",
        lambda: Case(BrainProduct(), (torch.randn(SIZE, SIZE).bfloat16(),)),
        kernel="product",
        bar=Bar(of_peak=0.9),
        peak="bf16",
        tolerance=1e-2,
    ),
    Work(
        "low",
        f"GEMM u8s8 {SIZE}x{SIZE}x{SIZE}",
        _bytes_case,
        kernel="integer_product",
        bar=Bar(of_peak=0.9),
        peak="u8s8",
        tolerance=0.0,
    ),
)
