"""Recurrent networks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import i64
from treadle.expr.scalar import int_value
from treadle.frontend.onnx.compose import (
    add,
    along_axis,
    cast,
    concat,
    counted,
    cut,
    expand,
    full,
    insert_axis,
    less,
    matmul,
    maximum,
    minimum,
    mul,
    permute,
    pick,
    reshape,
    sub,
    where,
)
from treadle.frontend.onnx.converter import Converter, converter
from treadle.frontend.onnx.loops import scan_over
from treadle.frontend.onnx.region import Region, Site
from treadle.frontend.onnx.rules import chosen, ranked
from treadle.ir.graph_builder import Traced
from treadle.ir.types import tensor
from treadle.ops.activation import (
    Elu,
    HardSigmoid,
    LeakyRelu,
    Relu,
    Sigmoid,
    Softplus,
    Softsign,
    ThresholdedRelu,
)
from treadle.ops.index import GatherElements
from treadle.ops.shape import Flip
from treadle.ops.trigonometric import Tanh

Activation = Callable[[Traced], Traced]
Floats = tuple[float, ...]


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    def of(value: float | None, default: float) -> float:
        return default if value is None else value

    table: dict[str, Activation] = {
        "relu": Relu(),
        "tanh": Tanh(),
        "sigmoid": Sigmoid(),
        "softsign": Softsign(),
        "softplus": Softplus(),
        "affine": lambda x: add(mul(x, of(alpha, 1.0)), of(beta, 0.0)),
        "leakyrelu": LeakyRelu(of(alpha, 0.01)),
        "thresholdedrelu": ThresholdedRelu(of(alpha, 1.0)),
        "scaledtanh": lambda x: mul(Tanh()(mul(x, of(beta, 1.0))), of(alpha, 1.0)),
        "hardsigmoid": HardSigmoid(of(alpha, 0.2), of(beta, 0.5)),
        "elu": Elu(of(alpha, 1.0)),
    }
    found = table.get(name.lower())
    if found is None:
        raise ModelImportError(
            "E0605",
            f"there is no activation '{name}' of recurrent networks",
            help=f"one of {', '.join(table)}",
        )
    return found


@dataclass(frozen=True, eq=False)
class Layer:
    """One direction of a layer: its weights, and what a step computes with them."""

    activations: tuple[Activation, ...]
    clip: float | None
    w: Traced
    r: Traced
    w_bias: Traced | None
    r_bias: Traced | None
    peepholes: Traced | None
    hidden: int

    def limited(self, x: Traced) -> Traced:
        """A gate's input between -clip and clip."""
        return x if self.clip is None else minimum(maximum(x, -self.clip), self.clip)

    def gate(self, x: Traced, k: int, count: int = 1) -> Traced:
        """Gates ``k`` to ``k + count`` of what holds all of them along the last axis."""
        return cut(x, x.ndim - 1, k * self.hidden, (k + count) * self.hidden)

    def apply(self, which: int, x: Traced) -> Traced:
        """One of the activations."""
        return self.activations[which](self.limited(x))


# Given the layer (its weights as values of the region), the input's part of all gates, and the
# state: the next state.
Cell = Callable[[Layer, Traced, list[Traced]], list[Traced]]


def _recurrent(layer: Layer, h: Traced) -> Traced:
    found = matmul(h, layer.r)
    return found if layer.r_bias is None else add(found, layer.r_bias)


def _rnn_cell(layer: Layer, x: Traced, state: list[Traced]) -> list[Traced]:
    return [layer.apply(0, add(x, _recurrent(layer, state[0])))]


def _gru_cell(after_reset: bool) -> Cell:
    def cell(layer: Layer, x: Traced, state: list[Traced]) -> list[Traced]:
        (h,) = state
        both = (
            layer.gate(_recurrent(layer, h), 0, 2) if after_reset else _gates_before_reset(layer, h)
        )
        gates = layer.apply(0, add(layer.gate(x, 0, 2), both))
        update, reset = layer.gate(gates, 0), layer.gate(gates, 1)
        if after_reset:
            inner = mul(reset, layer.gate(_recurrent(layer, h), 2))
        else:
            inner = matmul(mul(reset, h), layer.gate(layer.r, 2))
            if layer.r_bias is not None:
                inner = add(inner, layer.gate(layer.r_bias, 2))
        proposed = layer.apply(1, add(layer.gate(x, 2), inner))
        return [add(mul(sub(1.0, update), proposed), mul(update, h))]

    return cell


def _gates_before_reset(layer: Layer, h: Traced) -> Traced:
    found = matmul(h, layer.gate(layer.r, 0, 2))
    return found if layer.r_bias is None else add(found, layer.gate(layer.r_bias, 0, 2))


def _lstm_cell(input_forget: bool) -> Cell:
    def cell(layer: Layer, x: Traced, state: list[Traced]) -> list[Traced]:
        h, c = state
        gates = add(x, _recurrent(layer, h))
        peep = layer.peepholes
        i, o, f, g = (layer.gate(gates, k) for k in range(4))
        if peep is not None:
            i = add(i, mul(layer.gate(peep, 0), c))
            f = add(f, mul(layer.gate(peep, 2), c))
        entered = layer.apply(0, i)
        kept = sub(1.0, entered) if input_forget else layer.apply(0, f)
        memory = add(mul(kept, c), mul(entered, layer.apply(1, g)))
        if peep is not None:
            o = add(o, mul(layer.gate(peep, 1), memory))
        return [mul(layer.apply(0, o), layer.activations[2](memory)), memory]

    return cell


@dataclass(frozen=True, eq=False)
class Attributes:
    """What the recurrent operators share."""

    direction: str
    hidden_size: int | None
    activations: tuple[str, ...]
    activation_alpha: Floats | None
    activation_beta: Floats | None
    clip: float | None
    layout: int


@dataclass(frozen=True, eq=False)
class Inputs:
    """Their operands, time first: x (t, b, i), w (d, g h, i), r (d, g h, h), bias (d, 2 g h),
    initial (d, b, h)."""

    x: Traced
    w: Traced
    r: Traced
    bias: Traced | None
    lengths: Traced | None
    initial: tuple[Traced | None, ...]
    peepholes: Traced | None


def _reversed(x: Traced, lengths: Traced | None) -> Traced:
    """The steps in reverse order, of each sequence up to its length."""
    if lengths is None:
        return Flip((0,))(x)
    steps = along_axis(counted(x, x.shape[0]), 0, x.ndim)
    ends = along_axis(cast(lengths, i64), 1, x.ndim)
    places = where(less(steps, ends), sub(sub(ends, steps), 1), steps)
    return GatherElements(0)(x, expand(places, x.shape))


def _layer(inputs: Inputs, a: Attributes, d: int, kinds: int) -> Layer:
    gates = inputs.r.shape[1]
    hidden = a.hidden_size or int_value(inputs.r.shape[2])
    if hidden is None:
        raise ModelImportError(
            "E0607", "the hidden size of a recurrent layer must be known", help="give hidden_size"
        )
    bias = None if inputs.bias is None else pick(inputs.bias, 0, d)

    def named(values: Floats | None, k: int) -> float | None:
        return values[k] if values is not None and k < len(values) else None

    chosen = range(d * kinds, (d + 1) * kinds)
    return Layer(
        tuple(
            _activation(a.activations[k], named(a.activation_alpha, k), named(a.activation_beta, k))
            for k in chosen
        ),
        a.clip,
        permute(pick(inputs.w, 0, d), 1, 0),
        permute(pick(inputs.r, 0, d), 1, 0),
        None if bias is None else cut(bias, 0, 0, gates),
        None if bias is None else cut(bias, 0, gates, gates * 2),
        None if inputs.peepholes is None else pick(inputs.peepholes, 0, d),
        hidden,
    )


def _one_direction(
    region: Region, inputs: Inputs, a: Attributes, d: int, backwards: bool, cell: Cell, kinds: int
) -> tuple[Traced, list[Traced]]:
    """The results of every step, and the last state."""
    layer = _layer(inputs, a, d, kinds)
    x = _reversed(inputs.x, inputs.lengths) if backwards else inputs.x
    projected = matmul(x, layer.w)
    if layer.w_bias is not None:
        projected = add(projected, layer.w_bias)
    length, batch = x.shape[0], x.shape[1]
    states = [
        full(x, (batch, layer.hidden), 0) if v is None else pick(v, 0, d) for v in inputs.initial
    ]
    sequences = [projected]
    if inputs.lengths is not None:
        ends = reshape(cast(inputs.lengths, i64), 1, batch, 1)
        sequences.append(less(reshape(counted(x, length), length, 1, 1), ends))

    def step(
        inner: Region, current: list[Traced], slices: list[Traced]
    ) -> tuple[list[Traced], list[Traced]]:
        following = cell(_brought(inner, layer), slices[0], current)
        if len(slices) == 1:
            return following, [following[0]]
        active = slices[1]
        kept = [where(active, new, old) for new, old in zip(following, current, strict=True)]
        return kept, [where(active, following[0], 0)]

    final, (rows,) = scan_over(
        region, length, states, sequences, step, [tensor((batch, layer.hidden), x.dtype)]
    )
    return (_reversed(rows, inputs.lengths) if backwards else rows), final


def _brought(region: Region, layer: Layer) -> Layer:
    """The layer with weights as values of a region."""

    def bring(x: Traced | None) -> Traced | None:
        return None if x is None else region.bring(x)

    r = region.bring(layer.r)
    return Layer(
        layer.activations,
        layer.clip,
        layer.w,
        r,
        None,
        bring(layer.r_bias),
        bring(layer.peepholes),
        layer.hidden,
    )


_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


def _run(
    region: Region, inputs: Inputs, a: Attributes, cell: Cell, kinds: int
) -> tuple[Traced, ...]:
    """Y and the last states in ONNX's layout."""
    for tensor_, rank, what in (
        (inputs.x, 3, "X"),
        (inputs.w, 3, "W"),
        (inputs.r, 3, "R"),
        (inputs.bias, 2, "B"),
        (inputs.peepholes, 2, "P"),
        *((v, 3, "an initial state") for v in inputs.initial),
    ):
        if tensor_ is not None:
            ranked(tensor_, rank, what)
    directions = chosen(_DIRECTIONS, a.direction, "the direction")
    found = [
        _one_direction(region, inputs, a, d, back, cell, kinds) for d, back in enumerate(directions)
    ]
    rows = concat([insert_axis(y, 1) for y, _ in found], 1)
    finals = [
        concat([insert_axis(s[k], 0) for _, s in found], 0) for k in range(len(inputs.initial))
    ]
    if a.layout:
        return permute(rows, 2, 0, 1, 3), *[permute(f, 1, 0, 2) for f in finals]
    return rows, *finals


def _time_first(
    a: Attributes, x: Traced, initial: Sequence[Traced | None]
) -> tuple[Traced, tuple[Traced | None, ...]]:
    if not a.layout:
        return x, tuple(initial)
    return permute(x, 1, 0, 2), tuple(None if v is None else permute(v, 1, 0, 2) for v in initial)


def _defaults(names: tuple[str, ...], direction: str) -> tuple[str, ...]:
    return names * (2 if direction == "bidirectional" else 1)


@converter("RNN")
def rnn(
    site: Site,
    x: Traced,
    w: Traced,
    r: Traced,
    bias: Traced | None = None,
    lengths: Traced | None = None,
    h: Traced | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Traced, ...]:
    """The simple one."""
    names = activations or _defaults(("Tanh",), direction)
    a = Attributes(direction, hidden_size, names, activation_alpha, activation_beta, clip, layout)
    first, initial = _time_first(a, x, (h,))
    return _run(site.region, Inputs(first, w, r, bias, lengths, initial, None), a, _rnn_cell, 1)


@converter("GRU")
def gru(
    site: Site,
    x: Traced,
    w: Traced,
    r: Traced,
    bias: Traced | None = None,
    lengths: Traced | None = None,
    h: Traced | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    output_sequence: int = 0,
) -> tuple[Traced, ...]:
    """Gated recurrent units."""
    names = activations or _defaults(("Sigmoid", "Tanh"), direction)
    a = Attributes(direction, hidden_size, names, activation_alpha, activation_beta, clip, layout)
    first, initial = _time_first(a, x, (h,))
    inputs = Inputs(first, w, r, bias, lengths, initial, None)
    return _run(site.region, inputs, a, _gru_cell(bool(linear_before_reset)), 2)


@converter("LSTM")
def lstm(
    site: Site,
    x: Traced,
    w: Traced,
    r: Traced,
    bias: Traced | None = None,
    lengths: Traced | None = None,
    h: Traced | None = None,
    c: Traced | None = None,
    peepholes: Traced | None = None,
    *,
    activation_alpha: Floats | None = None,
    activation_beta: Floats | None = None,
    activations: tuple[str, ...] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    output_sequence: int = 0,
) -> tuple[Traced, ...]:
    """Long short-term memory."""
    names = activations or _defaults(("Sigmoid", "Tanh", "Tanh"), direction)
    a = Attributes(direction, hidden_size, names, activation_alpha, activation_beta, clip, layout)
    first, initial = _time_first(a, x, (h, c))
    inputs = Inputs(first, w, r, bias, lengths, initial, peepholes)
    return _run(site.region, inputs, a, _lstm_cell(bool(input_forget)), 3)


CONVERTERS: tuple[Converter, ...] = (rnn, gru, lstm)
