"""What a decoder of text is made of, said once for all families."""

from dataclasses import dataclass
from typing import Literal

NormKind = Literal["layer", "rms"]
NormPlace = Literal["before", "after", "around"]
Residual = Literal["sequential", "parallel", "parallel_shared"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Scaling = Literal["none", "linear", "llama3", "yarn"]


@dataclass(frozen=True, slots=True)
class Rotary:
    """Queries and keys turned by angles that grow with the position.

    The first ``width`` elements of each head are turned, halves against each other; ``theta`` is
    the base of the wavelengths. ``linear`` divides all angles by ``factor``. ``llama3`` divides
    those whose wavelength is longer than ``original / low``, keeps those shorter than
    ``original / high``, and goes from one to the other between. ``yarn`` does so with the pairs
    that turn fewer than ``low`` and more than ``high`` times in ``original`` positions, from pair
    to pair (``whole``: from a whole one to another), and makes what is turned ``gain`` times as
    long.
    """

    width: int
    theta: float = 10000.0
    scaling: Scaling = "none"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    gain: float = 1.0
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Learned:
    """A learned row for each position, added to the embedding."""


@dataclass(frozen=True, slots=True)
class Alibi:
    """Scores fall with the distance, for each head at a slope of its own."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A learned number for each head and distance is added to scores, the same in all layers.

    Distances fall into ``buckets``: half of them for one distance each, the rest for ranges that
    grow up to ``farthest``. Both directions have half of the buckets where both are seen.
    """

    buckets: int = 32
    farthest: int = 128


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder: dimensions, and which of the known parts stand where.

    ``norm_place``: before each part of a layer, after it and its residual, or before it and again
    after it (``around``). ``residual``: attention and feed-forward one after the other, or both on
    the same input (``parallel``), perhaps behind one norm (``parallel_shared``). ``windows`` says
    for each layer how many keys a query sees at most. ``hidden`` is the width between the two
    products of the feed-forward part, ``embedding_width`` that of the embedding where it is not
    ``width``. ``output_scale`` is the deviation of random weights of products whose result is
    added to the residual, as a factor of ``deviation``. ``key_bias``: keys have a bias where
    queries and values do. ``cross``: layers attend to the results of an encoder as well.
    """

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    shared_heads: int
    head_width: int
    hidden: int
    activation: Activation
    gated: bool
    norm: NormKind
    norm_eps: float
    position: Rotary | Learned | Alibi | Relative
    max_positions: int
    score_scale: float
    windows: tuple[int | None, ...]
    norm_place: NormPlace = "before"
    residual: Residual = "sequential"
    attention_bias: bool = False
    key_bias: bool = True
    output_bias: bool = False
    feed_forward_bias: bool = False
    head_bias: bool = False
    tied: bool = False
    embedding_norm: bool = False
    embedding_width: int | None = None
    embedding_scale: float = 1.0
    final_norm: bool = True
    score_softcap: float | None = None
    logit_softcap: float | None = None
    logit_scale: float = 1.0
    cross: bool = False
    deviation: float = 0.02
    output_scale: float = 1.0
    start_token: int | None = None
    end_tokens: tuple[int, ...] = ()

    @property
    def window(self) -> int | None:
        """How many keys any layer still sees; ``None`` if a layer sees all."""
        windows = [w for w in self.windows if w is not None]
        return max(windows) if windows and len(windows) == len(self.windows) else None


@dataclass(frozen=True, slots=True)
class EncoderDecoderConfig:
    """A decoder that reads what an encoder made of a source.

    ``encoder`` says what its layers are made of; each position sees all others. ``bands`` is the
    number of frequency bands of a source of sound, two frames of which are one position; a source
    without is tokens.
    """

    encoder: DecoderConfig
    decoder: DecoderConfig
    bands: int | None = None

    @property
    def frames(self) -> int:
        """The number of frames of a source of sound."""
        return 2 * self.encoder.max_positions
