"""Parts that programs of language models are made of: weights in their forms, norms, layers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from treadle.expr.dtype import DType, f32
from treadle.expr.scalar import Expr, Var, cast
from treadle.ir.calls import CallTensor
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.op import Op
from treadle.ir.types import TensorType, tensor
from treadle.language.config import Activation, DecoderConfig
from treadle.language.decoding import decoded_rows
from treadle.language.integer import product
from treadle.language.quantize import QuantizedWeight
from treadle.language.weights import Weights
from treadle.ops import (
    Add,
    Cast,
    Gather,
    Gelu,
    LayerNorm,
    Matmul,
    Mul,
    Relu,
    Reshape,
    RmsNorm,
    Silu,
)

_ACTIVATIONS: dict[Activation, Op] = {
    "silu": Silu(),
    "gelu": Gelu(),
    "gelu_tanh": Gelu("tanh"),
    "relu": Relu(),
}


@dataclass
class Parts:
    """Adds operations on the weights of one stack of layers, whose names begin with ``prefix``."""

    builder: GraphBuilder
    config: DecoderConfig
    weights: Weights
    prefix: str = field(default="", kw_only=True)

    def number(self, value: float) -> Traced:
        """A number as an operand."""
        return self.builder.literal(value, f32)

    def rows(self, name: str, places: Traced) -> Traced:
        """The rows of a matrix at ``places``, f32."""
        weight = self.weights[self.prefix + name]
        if isinstance(weight, QuantizedWeight):
            return decoded_rows(self.builder, weight, places, self.prefix + name)
        found = Gather(0)(self.builder.constant(self.prefix + name, weight), places)
        return as_type(found, f32)

    def vector(self, name: str) -> Traced:
        """A weight of one axis, f32."""
        weight = self.weights[self.prefix + name]
        assert isinstance(weight, np.ndarray)
        return self.builder.constant(self.prefix + name, weight.astype(np.float32))

    def linear(self, x: Traced, name: str, shared: str | None = None) -> Traced:
        """``x`` times the matrix of a name (or the one that it shares), plus the bias if there is
        one.
        """
        y = self.product(x, shared or f"{name}.weight")
        bias = f"{name}.bias"
        return Add()(y, self.vector(bias)) if self.prefix + bias in self.weights else y

    def product(self, x: Traced, name: str) -> Traced:
        """``x`` times a matrix; what is stored in fewer bits than f32 stays so in memory. Rows that
        meet 16-bit floats are rounded to these, and sums are f32.
        """
        name = self.prefix + name
        weight = self.weights[name]
        if isinstance(weight, QuantizedWeight):
            return product(self.builder, x, weight, name)
        if weight.dtype == np.float32:
            return Matmul()(x, self.builder.constant(name, weight.T))
        matrix = self.builder.constant(name, weight)
        return narrow_product(self.builder, Cast(matrix.dtype)(x), matrix)

    def norm(self, x: Traced, name: str) -> Traced:
        """The norm of that name."""
        eps, weight = self.config.norm_eps, self.vector(f"{name}.weight")
        if self.config.norm == "rms":
            return RmsNorm(-1, eps)(x, weight)
        return LayerNorm(-1, eps)(x, weight, self.vector(f"{name}.bias"))

    def activate(self, x: Traced) -> Traced:
        """The function between the products of the feed-forward part."""
        return _ACTIVATIONS[self.config.activation](x)


@dataclass
class Layer:
    """Adds one layer; what attention is, its kinds say."""

    parts: Parts
    number: int

    def around(self, x: Traced, name: str, part: Callable[[Traced], Traced]) -> Traced:
        """``x`` plus a part of it, with norms where the family has them."""
        place = self.parts.config.norm_place
        y = part(x if place == "after" else self.norm(x, f"{name}_norm"))
        if place == "around":
            y = self.norm(y, f"{name}_after_norm")
        y = Add()(x, y)
        return self.norm(y, f"{name}_norm") if place == "after" else y

    def heads(self, x: Traced, name: str, count: int) -> Traced:
        """A linear layer's result, head by head: (t, count, head width)."""
        y = self.linear(x, name)
        return Reshape((y.shape[0], count, self.parts.config.head_width))(y)

    def feed_forward(self, x: Traced) -> Traced:
        """Two products with a function between, or three where the function is a gate."""
        config = self.parts.config
        activate = self.parts.activate
        up = self.linear(x, "up")
        hidden = Mul()(activate(self.linear(x, "gate")), up) if config.gated else activate(up)
        return self.linear(hidden, "down")

    def linear(self, x: Traced, name: str) -> Traced:
        """A linear layer of this layer."""
        return self.parts.linear(x, f"layers.{self.number}.{name}")

    def norm(self, x: Traced, name: str) -> Traced:
        """A norm of this layer."""
        return self.parts.norm(x, f"layers.{self.number}.{name}")


def as_type(x: Traced, dtype: DType) -> Traced:
    """``x`` as elements of ``dtype``."""
    return x if x.dtype == dtype else Cast(dtype)(x)


def narrow_product(builder: GraphBuilder, x: Traced, weight: Traced) -> Traced:
    """Add the product of ``x`` (t, inputs) and a matrix (outputs, inputs), both of 16-bit floats,
    whose sums are f32: (t, outputs).
    """
    outputs, inputs = weight.shape
    f = LoopBuilder(f"product_{weight.dtype}_{outputs}x{inputs}")
    rows, matrix = f.input(tensor([Var("t"), inputs], x.dtype), "X"), f.input(weight.type, "W")

    def term(i: Var, n: Var, k: Var) -> Expr:
        return cast(rows[i, k], f32) * cast(matrix[n, k], f32)

    f.reduce(f.output((Var("t"), outputs), f32, "Y"), (inputs,), term)
    function = f.build()
    builder.functions[function.name] = function
    out = TensorType((x.shape[0], outputs), 2, f32)
    (result,) = builder.emit_all(CallTensor(function.name, (out,)), x, weight)
    return result
