"""The program that reads a source once: an encoder, and the keys and values that every layer of the
decoder will want of it.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import f32, i64
from treadle.expr.scalar import Expr, Var
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Module
from treadle.ir.types import TensorType, tensor
from treadle.language.config import EncoderDecoderConfig, Learned, Relative
from treadle.language.decoder import cross_names, page_inputs
from treadle.language.layers import Layer, Parts
from treadle.language.positions import buckets
from treadle.language.weights import Weights
from treadle.ops import (
    Add,
    Arange,
    Attention,
    Conv,
    Gather,
    Gelu,
    Less,
    Maximum,
    Minimum,
    Permute,
    Reshape,
    Sub,
    Where,
    WritePages,
)


def encoder_module(config: EncoderDecoderConfig, weights: Weights) -> Module:
    """The program ``main`` that reads sources.

    Shapes:  tokens: i64 (b, s), lengths: i64 (b,), which say how many of them count; or sound: f32
             (b, bands, frames), s being half of the frames; slots: i64 (b, s); cross_keys_i: f32
             (source_pages, shared heads, head width, 16), cross_values_i: f32 (source_pages, shared
             heads, 16, head width) -> those pages, with what the decoder wants of the sources, in
             the memory that was passed in.
    """
    builder = GraphBuilder("main")
    if config.bands is None:
        source = builder.input("tokens", TensorType((Var("b"), Var("s")), 2, i64))
        lengths = builder.input("lengths", TensorType((Var("b"),), 1, i64))
        slots = builder.input("slots", TensorType((Var("b"), Var("s")), 2, i64))
    else:
        sizes = tensor([config.bands, config.frames], f32).dims
        source = builder.input("sound", TensorType((Var("b"), *sizes), 3, f32))
        lengths = None
        positions = tensor([config.encoder.max_positions], f32).dims
        slots = builder.input("slots", TensorType((Var("b"), *positions), 2, i64))
    names = cross_names(config.decoder)
    pages = page_inputs(builder, config.decoder, names, "source_pages")
    batch, count = slots.shape
    encoder = _Encoder(builder, config.encoder, weights, batch, count, lengths, prefix="encoder.")
    x = encoder.run(encoder.tokens(source) if config.bands is None else encoder.sound(source))
    places = Reshape((batch * count,))(slots)
    decoder = Parts(builder, config.decoder, weights)
    found: list[Traced] = []
    for number in range(config.decoder.layers):
        layer = Layer(decoder, number)
        for what, old in zip(("key", "value"), pages[2 * number : 2 * number + 2], strict=True):
            new = layer.heads(x, f"cross_{what}", config.decoder.shared_heads)
            found.append(WritePages(transposed=what == "key")(old, new, places))
    function = replace_fields(
        builder.finish(*found),
        outputs=names,
        donated=tuple((i, len(builder.params) - len(names) + i) for i in range(len(names))),
    )
    return Module({**builder.functions, "main": function}, builder.constants)


@dataclass
class _Encoder(Parts):
    """Adds the operations of the encoder. Rows of ``x`` are the positions of all sources."""

    batch: Expr
    count: Expr
    lengths: Traced | None

    def tokens(self, source: Traced) -> Traced:
        """A row for each token."""
        return self.rows("embedding.weight", Reshape((self.batch * self.count,))(source))

    def sound(self, source: Traced) -> Traced:
        """A row for each two frames."""
        for name, stride in (("first", 1), ("second", 2)):
            kernel = self.weights[f"{self.prefix}{name}.weight"]
            assert isinstance(kernel, np.ndarray)
            weight = self.builder.constant(f"{name}_kernel", kernel.astype(np.float32))
            convolve = Conv(stride=(stride,), padding=((1, 1),), dilation=(1,), groups=1)
            source = Gelu()(convolve(source, weight, self.vector(f"{name}.bias")))
        x = Permute((0, 2, 1))(source)
        if isinstance(self.config.position, Learned):
            table = self.weights[f"{self.prefix}positions.weight"]
            assert isinstance(table, np.ndarray)
            x = Add()(x, self.builder.constant("source_positions", table.astype(np.float32)))
        return Reshape((self.batch * self.count, self.config.width))(x)

    def run(self, x: Traced) -> Traced:
        """The encoder's result (b * s, width)."""
        mask = self.mask()
        for number in range(self.config.layers):
            x = _EncoderLayer(self, number, self, mask).run(x)
        return self.norm(x, "final_norm") if self.config.final_norm else x

    def mask(self) -> Traced | None:
        """What is added to the scores of all pairs of positions, (b, heads or 1, s, s)."""
        bias = self.relative()
        if self.lengths is None:
            return bias
        places = self.builder.emit(Arange(0, self.count, 1, i64))
        counts = Less()(places, Reshape((self.batch, 1))(self.lengths))
        seen = Reshape((self.batch, 1, 1, self.count))(counts)
        return Where()(seen, self.number(0.0) if bias is None else bias, self.number(-inf))

    def relative(self) -> Traced | None:
        """A learned number for each head and distance, (1, heads, s, s)."""
        position = self.config.position
        if not isinstance(position, Relative):
            return None
        table = self.weights[f"{self.prefix}relative.weight"]
        assert isinstance(table, np.ndarray)
        rows = self.builder.constant("source_relative", table[buckets(position, True)])
        places = self.builder.emit(Arange(0, self.count, 1, i64))
        distance = Sub()(places, Reshape((self.count, 1))(places))
        far, back = (self.builder.literal(n, i64) for n in (position.farthest, -position.farthest))
        number = Add()(Minimum()(Maximum()(distance, back), far), far)
        values = Permute((2, 0, 1))(Gather(0)(rows, number))
        return Reshape((1, self.config.heads, self.count, self.count))(values)


@dataclass
class _EncoderLayer(Layer):
    """Adds one layer in which every position sees all others of its source."""

    encoder: _Encoder
    mask: Traced | None

    def run(self, x: Traced) -> Traced:
        """The layer's result (b * s, width)."""
        x = self.around(x, "attention", self.attention)
        return self.around(x, "feed_forward", self.feed_forward)

    def attention(self, x: Traced) -> Traced:
        """What each position takes from all others."""
        config = self.encoder.config
        shape = (self.encoder.batch, self.encoder.count)
        heads = (config.heads, config.shared_heads, config.shared_heads)
        q, k, v = (
            Permute((0, 2, 1, 3))(
                Reshape((*shape, count, config.head_width))(self.heads(x, name, count))
            )
            for name, count in zip(("query", "key", "value"), heads, strict=True)
        )
        operands = (q, k, v) if self.mask is None else (q, k, v, self.mask)
        y = Permute((0, 2, 1, 3))(Attention(scale=config.score_scale)(*operands))
        rows = (shape[0] * shape[1], config.heads * config.head_width)
        return self.linear(Reshape(rows)(y), "output")
