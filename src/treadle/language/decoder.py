"""The program of one step of a decoder: new tokens of any number of sequences in, logits and the
grown cache out.

One program serves the first pass over a prompt and every later token, for any number of sequences
of any lengths: the tokens of all sequences lie one after another, and a table says where the keys
and values of each are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import DType, f32, i64
from treadle.expr.scalar import Var, int_value
from treadle.ir.graph_builder import GraphBuilder, Traced
from treadle.ir.module import Module
from treadle.ir.types import TensorType, tensor
from treadle.language.config import Alibi, DecoderConfig, Learned, Relative, Rotary
from treadle.language.layers import Layer, Parts, as_type
from treadle.language.positions import buckets, frequencies, slopes
from treadle.language.weights import Weights
from treadle.ops import (
    Add,
    Arange,
    Cast,
    Concat,
    Cos,
    Div,
    Einsum,
    Flip,
    Gather,
    GreaterEqual,
    Maximum,
    Minimum,
    Mul,
    PagedAttention,
    Permute,
    Reshape,
    Sin,
    Slice,
    Softmax,
    Sub,
    Tanh,
    Where,
    WritePages,
)
from treadle_runtime.threads import available_threads

PAGE_SIZE = 16
"""Tokens of a page: as many as a vector of f32 has lanes on wide machines."""

INPUTS = ("tokens", "positions", "sequences", "slots", "table", "wanted")
"""The inputs of the program before the cache's arrays."""


def cache_names(config: DecoderConfig) -> tuple[str, ...]:
    """The inputs that hold the cache, two per layer, in order."""
    return tuple(f"{what}_{i}" for i in range(config.layers) for what in ("keys", "values"))


def cross_names(config: DecoderConfig) -> tuple[str, ...]:
    """The inputs that hold keys and values of sources, two per layer, in order."""
    return tuple(f"cross_{name}" for name in cache_names(config))


def cache_shapes(config: DecoderConfig, pages: int) -> tuple[tuple[int, ...], ...]:
    """Their shapes for a number of pages; within a page keys lie transposed."""
    heads, width = config.shared_heads, config.head_width
    layer = ((pages, heads, width, PAGE_SIZE), (pages, heads, PAGE_SIZE, width))
    return layer * config.layers


def decoder_module(
    config: DecoderConfig, weights: Weights, *, kept: DType = f32, threads: int | None = None
) -> Module:
    """The program ``main`` of one step. Keys and values are ``kept`` as f32, bf16 or f16. As many
    heads go together past the pages as leave work for all ``threads``, by default those of all
    cores.

    Shapes:  tokens, positions, sequences, slots: i64 (t,); table: i64 (b, m); wanted: i64 (r,);
             keys_i: kept (pages, shared heads, head width, 16), values_i: kept (pages, shared
             heads, 16, head width) -> logits f32 (r, vocabulary), hidden f32 (t, width), then all
             keys_i and values_i, in the memory that was passed in. With ``config.cross`` there
             come, after the cache, sources: i64 (b, n), the pages of each sequence's source; last:
             i64 (t,), the last place of the source of each token; cross_keys_i, cross_values_i,
             f32, shaped as keys_i and values_i, with pages of their own number.
    """
    builder = GraphBuilder("main")
    names = cache_names(config)
    tokens, positions, sequences, slots = (
        builder.input(n, TensorType((Var("t"),), 1, i64)) for n in INPUTS[:4]
    )
    table = builder.input("table", TensorType((Var("b"), Var("m")), 2, i64))
    wanted = builder.input("wanted", TensorType((Var("r"),), 1, i64))
    pages = page_inputs(builder, config, names, "pages", kept)
    cross = cross_inputs(builder, config)
    step = _Step(
        *(builder, config, weights, tokens, positions, sequences, slots, table, cross),
        together=_heads_together(config.shared_heads, threads or available_threads()),
    )
    x, grown = step.run(pages)
    hidden = step.normal(x)
    logits = step.logits(Gather(0)(hidden, wanted))
    function = replace_fields(
        builder.finish(logits, hidden, *grown),
        outputs=("logits", "hidden", *names),
        donated=tuple((i + 2, i + len(INPUTS)) for i in range(len(names))),
    )
    return Module({**builder.functions, "main": function}, builder.constants)


def page_inputs(
    builder: GraphBuilder,
    config: DecoderConfig,
    names: Sequence[str],
    count: str,
    dtype: DType = f32,
) -> list[Traced]:
    """Inputs for pages of keys and values, so many as the symbol ``count`` says."""
    return [
        builder.input(n, TensorType((Var(count), *tensor(s[1:], dtype).dims), 4, dtype))
        for n, s in zip(names, cache_shapes(config, 1), strict=True)
    ]


def _heads_together(heads: int, threads: int) -> int:
    """The most heads of which each thread has a group, if there are heads enough."""
    return max(
        n for n in range(1, heads + 1) if heads % n == 0 and heads // n >= min(heads, threads)
    )


@dataclass(frozen=True, slots=True)
class Cross:
    """What a decoder sees of its sources."""

    sources: Traced
    last: Traced
    pages: list[Traced]


def cross_inputs(builder: GraphBuilder, config: DecoderConfig) -> Cross | None:
    """The inputs of a decoder that has sources."""
    if not config.cross:
        return None
    sources = builder.input("sources", TensorType((Var("b"), Var("n")), 2, i64))
    last = builder.input("last", TensorType((Var("t"),), 1, i64))
    return Cross(sources, last, page_inputs(builder, config, cross_names(config), "source_pages"))


@dataclass
class _Step(Parts):
    """Adds the operations of a step, part by part. Rows of ``x`` are tokens throughout."""

    tokens: Traced
    positions: Traced
    sequences: Traced
    slots: Traced
    table: Traced
    cross: Cross | None
    together: int
    bias: "_Bias | None" = None

    def run(self, pages: list[Traced]) -> tuple[Traced, list[Traced]]:
        """The last layer's result (t, width), and the cache with what is new."""
        turn = self.turn()
        slopes = self.slopes()
        self.bias = self.relative()
        x = self.embedded()
        grown: list[Traced] = []
        for number in range(self.config.layers):
            layer = _Layer(self, number, self, turn, slopes, *pages[2 * number : 2 * number + 2])
            x = layer.run(x)
            grown += [layer.keys, layer.values]
        return x, grown

    def embedded(self) -> Traced:
        """A row for each token."""
        config = self.config
        x = self.rows("embedding.weight", self.tokens)
        if config.embedding_scale != 1.0:
            x = Mul()(x, self.number(config.embedding_scale))
        if config.embedding_width is not None:
            x = self.linear(x, "project_in")
        if isinstance(config.position, Learned):
            x = Add()(x, self.rows("positions.weight", self.positions))
        return self.norm(x, "embedding_norm") if config.embedding_norm else x

    def normal(self, x: Traced) -> Traced:
        """The last layer's result as the head takes it."""
        return self.norm(x, "final_norm") if self.config.final_norm else x

    def logits(self, x: Traced) -> Traced:
        """Scores of all tokens to come next, for each row of what ``normal`` gives."""
        config = self.config
        if config.embedding_width is not None:
            x = self.linear(x, "project_out")
        if config.logit_scale != 1.0:
            x = Mul()(x, self.number(config.logit_scale))
        y = self.linear(x, "head", "embedding.weight" if config.tied else None)
        if config.logit_softcap is None:
            return y
        cap = self.number(config.logit_softcap)
        return Mul()(Tanh()(Div()(y, cap)), cap)

    def turn(self) -> "_Turn | None":
        """The angles of all positions, where the positions are said by angles."""
        position = self.config.position
        if not isinstance(position, Rotary):
            return None
        t, half = self.positions.shape[0], position.width // 2
        steps = self.builder.constant("frequencies", frequencies(position)[None])
        angles = Mul()(Reshape((t, 1))(Cast(f32)(self.positions)), steps)
        signs = self.builder.constant("signs", np.array([-1, 1], np.float32).reshape(1, 1, 2, 1))
        cos, sin = (Reshape((t, 1, 1, half))(f()(angles)) for f in (Cos, Sin))
        if position.gain != 1.0:
            cos, sin = (Mul()(x, self.number(position.gain)) for x in (cos, sin))
        return _Turn(position.width, cos, Mul()(sin, signs))

    def relative(self) -> "_Bias | None":
        """What is added to the scores of all places by their distance, and which are seen."""
        position = self.config.position
        if not isinstance(position, Relative):
            return None
        table = self.weights[f"{self.prefix}relative.weight"]
        assert isinstance(table, np.ndarray)
        rows = self.builder.constant("relative", table[buckets(position, False)])
        t, length = self.positions.shape[0], self.table.shape[1] * PAGE_SIZE
        places = Reshape((1, length))(self.builder.emit(Arange(0, length, 1, i64)))
        distance = Sub()(Reshape((t, 1))(self.positions), places)
        zero, farthest = (self.builder.literal(n, i64) for n in (0, position.farthest))
        near = Minimum()(Maximum()(distance, zero), farthest)
        values = Permute((0, 2, 1))(Gather(0)(rows, near))
        return _Bias(values, Reshape((t, 1, length))(GreaterEqual()(distance, zero)))

    def slopes(self) -> tuple[Traced, ...]:
        """The slopes of ALiBi as a further operand of attention, or none."""
        if not isinstance(self.config.position, Alibi):
            return ()
        return (self.builder.constant("slopes", slopes(self.config.heads)),)


@dataclass(frozen=True, slots=True)
class _Bias:
    """For all places of a sequence's pages: what is added to scores (t, heads, length), and
    whether the place is seen (t, 1, length).
    """

    values: Traced
    seen: Traced


@dataclass(frozen=True, slots=True)
class _Turn:
    """Rotation of the first ``width`` elements of each head: cosines (t, 1, 1, width / 2) and sines
    with their signs (t, 1, 2, width / 2).
    """

    width: int
    cos: Traced
    sin: Traced

    def apply(self, x: Traced) -> Traced:
        """``x`` (t, heads, d), turned."""
        t, heads, size = x.shape
        turned = x if self.is_whole(x) else Slice(2, 0, self.width)(x)
        halves = Reshape((t, heads, 2, self.width // 2))(turned)
        both = Add()(Mul()(halves, self.cos), Mul()(Flip((2,))(halves), self.sin))
        result = Reshape((t, heads, self.width))(both)
        if self.is_whole(x):
            return result
        return Concat(2)(result, Slice(2, self.width, size)(x))

    def is_whole(self, x: Traced) -> bool:
        """Whether all elements are turned."""
        return int_value(x.shape[2]) == self.width


@dataclass
class _Layer(Layer):
    """Adds one layer of a step; ``keys`` and ``values`` are its part of the cache, which grows."""

    step: _Step
    turn: "_Turn | None"
    slopes: tuple[Traced, ...]
    keys: Traced
    values: Traced

    def run(self, x: Traced) -> Traced:
        """The layer's result (t, width)."""
        residual = self.step.config.residual
        if residual == "sequential":
            x = self.around(x, "attention", self.attention)
            if self.step.cross is not None:
                x = self.around(x, "cross", self.cross)
            return self.around(x, "feed_forward", self.feed_forward)
        normal = self.norm(x, "attention_norm")
        attended = self.attention(normal)
        if residual == "parallel":
            normal = self.norm(x, "feed_forward_norm")
        return Add()(Add()(attended, self.feed_forward(normal)), x)

    def attention(self, x: Traced) -> Traced:
        """What each token takes from those before it; its own key and value join the cache."""
        step, config = self.step, self.step.config
        q = self.heads(x, "query", config.heads)
        k = self.heads(x, "key", config.shared_heads)
        v = self.heads(x, "value", config.shared_heads)
        if self.turn is not None:
            q, k = self.turn.apply(q), self.turn.apply(k)
        self.keys = WritePages(transposed=True)(self.keys, as_type(k, self.keys.dtype), step.slots)
        self.values = WritePages()(self.values, as_type(v, self.values.dtype), step.slots)
        if step.bias is not None:
            return self.joined(self.related(q, step.bias), "output")
        attend = PagedAttention(
            *(config.score_scale, config.windows[self.number], config.score_softcap),
            together=step.together,
        )
        places = (step.table, step.sequences, step.positions, *self.slopes)
        return self.joined(attend(q, self.keys, self.values, *places), "output")

    def related(self, q: Traced, bias: "_Bias") -> Traced:
        """Attention with a learned number for each distance: (t, heads, head width).

        Source: the scores of all places of a sequence's pages, those to come left out.
        """
        step, config = self.step, self.step.config
        t, heads, width = q.shape
        pages = Gather(0)(step.table, step.sequences)
        keys, values = (as_type(Gather(0)(x, pages), f32) for x in (self.keys, self.values))
        length = pages.shape[1] * PAGE_SIZE
        scores = Reshape((t, heads, length))(Einsum("thd,tmhds->thms")(q, keys))
        if config.score_scale != 1.0:
            scores = Mul()(scores, step.number(config.score_scale))
        scores = Where()(bias.seen, Add()(scores, bias.values), step.number(-inf))
        weights = Reshape((t, heads, pages.shape[1], PAGE_SIZE))(Softmax()(scores))
        found = Einsum("thms,tmhsd->thd")(weights, values)
        return Reshape((t, heads, width))(found)

    def cross(self, x: Traced) -> Traced:
        """What each token takes from the source of its sequence."""
        step, config = self.step, self.step.config
        assert step.cross is not None
        q = self.heads(x, "cross_query", config.heads)
        keys, values = step.cross.pages[2 * self.number : 2 * self.number + 2]
        attend = PagedAttention(config.score_scale, together=step.together)
        y = attend(q, keys, values, step.cross.sources, step.sequences, step.cross.last)
        return self.joined(y, "cross_output")

    def joined(self, y: Traced, name: str) -> Traced:
        """A linear layer of all heads' results."""
        config = self.step.config
        return self.linear(Reshape((y.shape[0], config.heads * config.head_width))(y), name)
