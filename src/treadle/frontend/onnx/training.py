"""Optimizers: a step of each for any number of tensors."""

from collections.abc import Callable, Sequence

from treadle.expr.dtype import i64
from treadle.frontend.onnx.compose import add, cast, div, equal, mul, sub, where
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.rules import require
from treadle.ir.graph_builder import Traced
from treadle.ops.elementwise import Sqrt, Square
from treadle.ops.power import Pow

DOMAIN = "ai.onnx.preview.training"
Step = Callable[[Sequence[Traced]], tuple[Traced, ...]]


def _each(tensors: Sequence[Traced], kinds: int, step: Step) -> list[Traced]:
    """Apply a step to the k-th tensor of every kind, for each k; the results are sorted by kind
    again."""
    require(len(tensors) % kinds == 0, f"{len(tensors)} tensors are not {kinds} of each")
    count = len(tensors) // kinds
    found = [step(tensors[k::count]) for k in range(count)]
    return [result for kind in zip(*found, strict=True) for result in kind]


@converter("Adagrad", domain=DOMAIN)
def adagrad(
    rate: Traced,
    count: Traced,
    *tensors: Traced,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
) -> list[Traced]:
    """Steps divided by the root of the sum of squared gradients."""
    reduced = div(rate, add(mul(cast(count, rate.dtype), decay_factor), 1.0))

    def step(parts: Sequence[Traced]) -> tuple[Traced, ...]:
        x, gradient, squares = parts
        g = add(mul(x, norm_coefficient), gradient)
        summed = add(squares, Square()(g))
        return sub(x, div(mul(reduced, g), add(Sqrt()(summed), epsilon))), summed

    return _each(tensors, 3, step)


@converter("Adam", domain=DOMAIN)
def adam(
    rate: Traced,
    count: Traced,
    *tensors: Traced,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> list[Traced]:
    """Running averages of gradients and their squares."""
    times = cast(count, rate.dtype)
    powers = [Pow()(rate.builder.literal(b, rate.dtype), times) for b in (alpha, beta)]
    corrected = div(mul(rate, Sqrt()(sub(1.0, powers[1]))), sub(1.0, powers[0]))
    used = where(equal(cast(count, i64), 0), rate, corrected)

    def step(parts: Sequence[Traced]) -> tuple[Traced, ...]:
        x, gradient, first, second = parts
        g = add(mul(x, norm_coefficient), gradient)
        v = add(mul(first, alpha), mul(g, 1 - alpha))
        h = add(mul(second, beta), mul(Square()(g), 1 - beta))
        moved = sub(x, div(mul(used, v), add(Sqrt()(h), epsilon)))
        return mul(moved, 1 - norm_coefficient_post), v, h

    return _each(tensors, 4, step)


@converter("Momentum", domain=DOMAIN)
def momentum_step(
    rate: Traced,
    count: Traced,
    *tensors: Traced,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
) -> list[Traced]:
    """A velocity that gradients are added to; Nesterov's looks ahead."""
    first = equal(cast(count, i64), 0)
    share = where(
        first, rate.builder.literal(1.0, rate.dtype), rate.builder.literal(beta, rate.dtype)
    )

    def step(parts: Sequence[Traced]) -> tuple[Traced, ...]:
        x, gradient, velocity = parts
        g = add(mul(x, norm_coefficient), gradient)
        v = add(mul(velocity, alpha), mul(g, share))
        direction = add(g, mul(v, alpha)) if mode == "nesterov" else v
        return sub(x, mul(rate, direction)), v

    return _each(tensors, 3, step)


CONVERTERS = (adagrad, adam, momentum_step)
