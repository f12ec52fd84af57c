"""JAX on the CPU: kernels written with its own functions, compiled by ``jit``."""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .backend import Job, Prepared, Unsupported, arrays_in_order, weights_of

Array = jax.Array
Weights = Mapping[str, Array]
Attributes = Mapping[str, Any]
Kernel = Callable[..., Array]
SPATIAL = ("H", "HW", "DHW")
EPSILON = 1e-5


def product(weights: Weights, _attributes: Attributes, x: Array) -> Array:
    """``x @ weight``."""
    return x @ weights["weight"]


def integer_product(weights: Weights, _attributes: Attributes, x: Array) -> Array:
    """``x @ weight``, summed in 32-bit integers."""
    contract = (((1,), (0,)), ((), ()))
    return lax.dot_general(x, weights["weight"], contract, preferred_element_type=jnp.int32)


def convolution(weights: Weights, attributes: Attributes, x: Array) -> Array:
    """A convolution over one to three dimensions."""
    return _convolve(x, weights["weight"], attributes)


def _convolve(x: Array, weight: Array, attributes: Attributes) -> Array:
    rank = x.ndim - 2
    layout = f"NC{SPATIAL[rank - 1]}"
    padding = attributes["padding"]
    return lax.conv_general_dilated(
        x,
        weight,
        (attributes["stride"],) * rank,
        [(padding, padding)] * rank,
        rhs_dilation=(attributes.get("dilation", 1),) * rank,
        feature_group_count=attributes.get("groups", 1),
        dimension_numbers=(layout, f"OI{SPATIAL[rank - 1]}", layout),
    )


def transposed(weights: Weights, attributes: Attributes, x: Array) -> Array:
    """A transposed convolution: one of the spread input with the turned kernel."""
    weight = jnp.flip(weights["weight"], (2, 3))
    edge = weight.shape[2] - 1 - attributes["padding"]
    return lax.conv_general_dilated(
        x,
        weight,
        (1, 1),
        [(edge, edge)] * 2,
        lhs_dilation=(attributes["stride"],) * 2,
        dimension_numbers=("NCHW", "IOHW", "NCHW"),
    )


def capsules(weights: Weights, attributes: Attributes, x: Array) -> Array:
    """A convolution of each row of the capsules."""
    y = _convolve(x.reshape(-1, *x.shape[2:]), weights["conv.weight"], attributes)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def conv_bn_relu(weights: Weights, attributes: Attributes, x: Array) -> Array:
    """Convolution with bias, normalization by running statistics, ReLU."""

    def column(name: str) -> Array:
        return weights[name][None, :, None, None]

    y = _convolve(x, weights["0.weight"], attributes) + column("0.bias")
    scale = column("1.weight") * lax.rsqrt(column("1.running_var") + EPSILON)
    return jax.nn.relu((y - column("1.running_mean")) * scale + column("1.bias"))


def matmul(_weights: Weights, _attributes: Attributes, x: Array, y: Array) -> Array:
    """The product of two inputs."""
    return x @ y


def scores(_weights: Weights, _attributes: Attributes, query: Array, key: Array) -> Array:
    """Queries times keys for each head."""
    return jnp.einsum("blhd,bmhd->bhlm", query, key)


def norm(_weights: Weights, _attributes: Attributes, x: Array) -> Array:
    """The Euclidean norm of each matrix."""
    return jnp.sqrt(jnp.sum(x * x, (1, 2)))


def softmax(_weights: Weights, _attributes: Attributes, x: Array) -> Array:
    """Softmax along the last axis."""
    return jax.nn.softmax(x, -1)


def layer_norm(weights: Weights, _attributes: Attributes, x: Array) -> Array:
    """Normalization of the last axis."""
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.var(x, -1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + EPSILON) * weights["weight"] + weights["bias"]


def gelu(_weights: Weights, _attributes: Attributes, x: Array) -> Array:
    """GELU with the error function."""
    return jax.nn.gelu(x, approximate=False)


def chain(_weights: Weights, _attributes: Attributes, x: Array, y: Array) -> Array:
    """Scale, shift, activation, gate and residual."""
    return jax.nn.relu(x * 1.5 + 0.25) * y + x


def math_chain(_weights: Weights, _attributes: Attributes, x: Array, y: Array) -> Array:
    """A chain with an exponential and a hyperbolic tangent."""
    return jnp.tanh(x) * jax.nn.sigmoid(y) + x


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            product,
            integer_product,
            convolution,
            transposed,
            capsules,
            conv_bn_relu,
            matmul,
            scores,
            norm,
            softmax,
            layer_norm,
            gelu,
            chain,
            math_chain,
        )
    }
)


class Jax:
    """``jit`` with the weights as constants."""

    version = version("jax")

    def prepare(self, job: Job) -> Prepared:
        """Compile ahead for the shapes of the inputs."""
        kernel = KERNELS.get(job.kernel)
        if kernel is None:
            raise Unsupported("not written in JAX")
        weights = {name: jnp.asarray(x) for name, x in weights_of(job.case()).items()}
        inputs = [jnp.asarray(x) for x in job.inputs()]
        start = time.perf_counter()
        function = jax.jit(lambda *xs: kernel(weights, job.attributes, *xs))
        run = function.lower(*inputs).compile()
        return Prepared(
            call=lambda: jax.block_until_ready(run(*inputs)),
            arrays=arrays_in_order,
            stages={"compile": time.perf_counter() - start},
        )


BACKEND = Jax()
