"""The same weights as an ONNX file, with the operators that ONNX Runtime has for language models:
``GroupQueryAttention`` with its cache, and ``MatMulNBits``.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from ..common import torchvision_operators  # noqa: F401  (before transformers)

from transformers import LlamaForCausalLM  # isort: skip

_BITS = {"int4": 4, "int8": 8}
_GROUP = 32
_BYTES = 4
"""MatMulNBits rounds rows to bytes, as llama.cpp does (its accuracy_level 4)."""


def write_onnx(folder: Path, kind: str) -> Path:
    """The model of a folder with matrices in f32, or in blocks of 32 integers."""
    path = folder / f"{kind}.onnx"
    if path.exists():
        return path
    model = _Writer(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)).model()
    if kind in _BITS:
        quantizer = MatMulNBitsQuantizer(
            model, bits=_BITS[kind], block_size=_GROUP, is_symmetric=True, accuracy_level=_BYTES
        )
        quantizer.process()
        model = quantizer.model.model
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        convert_attribute=False,
    )
    return path


class _Writer:
    """Adds nodes."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.config, self.weights = model.config, model.state_dict()
        self.heads, self.shared = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
        )
        self.width = self.config.hidden_size // self.heads
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        """Tokens i64 (1, t), length i32 (1,), total i32 () -> logits of the last, caches."""
        kv = ["batch", self.shared, "past", self.width]
        inputs = [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "t"]),
            helper.make_tensor_value_info("length", TensorProto.INT32, ["batch"]),
            helper.make_tensor_value_info("total", TensorProto.INT32, []),
        ]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
        self._angles()
        x = self.node("Gather", [self.weight("model.embed_tokens.weight"), "tokens"])
        for number in range(self.config.num_hidden_layers):
            x = self._layer(x, number)
            for what in ("key", "value"):
                inputs.append(
                    helper.make_tensor_value_info(f"past_{what}_{number}", TensorProto.FLOAT, kv)
                )
                outputs.append(
                    helper.make_tensor_value_info(f"{what}_{number}", TensorProto.FLOAT, None)
                )
        last = self.node("Gather", [x, self.constant("minus_one", np.array([-1]))], axis=1)
        last = self.norm(last, "model.norm.weight")
        self.linear(last, "lm_head.weight", "logits")
        graph = helper.make_graph(self.nodes, "llama", inputs, outputs, self.initializers)
        imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def _angles(self) -> None:
        half = self.width // 2
        steps = 10000.0 ** -(np.arange(half) * 2 / self.width)
        angles = np.arange(self.config.max_position_embeddings)[:, None] * steps
        self.constant("cos", np.cos(angles).astype(np.float32))
        self.constant("sin", np.sin(angles).astype(np.float32))

    def _layer(self, x: str, number: int) -> str:
        prefix = f"model.layers.{number}"
        normal = self.norm(x, f"{prefix}.input_layernorm.weight")
        parts = [self.linear(normal, f"{prefix}.self_attn.{p}_proj.weight") for p in "qkv"]
        attended = f"attended_{number}"
        past = [f"past_key_{number}", f"past_value_{number}"]
        self.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [*parts, *past, "length", "total", "cos", "sin"],
                [attended, f"key_{number}", f"value_{number}"],
                domain="com.microsoft",
                num_heads=self.heads,
                kv_num_heads=self.shared,
                do_rotary=1,
                rotary_interleaved=0,
            )
        )
        x = self.node("Add", [x, self.linear(attended, f"{prefix}.self_attn.o_proj.weight")])
        normal = self.norm(x, f"{prefix}.post_attention_layernorm.weight")
        gate = self.linear(normal, f"{prefix}.mlp.gate_proj.weight")
        up = self.linear(normal, f"{prefix}.mlp.up_proj.weight")
        gate = self.node("Mul", [gate, self.node("Sigmoid", [gate])])
        down = self.linear(self.node("Mul", [gate, up]), f"{prefix}.mlp.down_proj.weight")
        return self.node("Add", [x, down])

    def node(self, kind: str, inputs: Sequence[str], **attributes: int) -> str:
        """Add a node with one result."""
        result = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def norm(self, x: str, weight: str) -> str:
        """Root mean square normalization."""
        result = f"norm_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                "SimplifiedLayerNormalization",
                [x, self.weight(weight)],
                [result],
                axis=-1,
                epsilon=self.config.rms_norm_eps,
                stash_type=1,
            )
        )
        return result

    def linear(self, x: str, weight: str, result: str | None = None) -> str:
        """A product with a matrix."""
        result = result or f"product_{len(self.nodes)}"
        matrix = np.ascontiguousarray(self.weights[weight].numpy().T)
        self.nodes.append(helper.make_node("MatMul", [x, self.constant(weight, matrix)], [result]))
        return result

    def weight(self, name: str) -> str:
        """A weight as it is."""
        return self.constant(name, self.weights[name].numpy())

    def constant(self, name: str, array: np.ndarray) -> str:
        """A constant of the file."""
        self.initializers.append(numpy_helper.from_array(array, name))
        return name
