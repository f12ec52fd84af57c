"""NumPy, for the kernels that it expresses without a detour."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from .backend import Job, Prepared, Unsupported, arrays_in_order, weights_of

Weights = Mapping[str, np.ndarray]
Kernel = Callable[..., np.ndarray]
EPSILON = 1e-5


def product(weights: Weights, x: np.ndarray) -> np.ndarray:
    """``x @ weight``."""
    return x @ weights["weight"]


def matmul(_weights: Weights, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The product of two inputs."""
    return x @ y


def scores(_weights: Weights, query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Queries times keys for each head."""
    return query.transpose(0, 2, 1, 3) @ key.transpose(0, 2, 3, 1)


def norm(_weights: Weights, x: np.ndarray) -> np.ndarray:
    """The Euclidean norm of each matrix."""
    return np.sqrt(np.einsum("bmn,bmn->b", x, x))


def softmax(_weights: Weights, x: np.ndarray) -> np.ndarray:
    """Softmax along the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e


def layer_norm(weights: Weights, x: np.ndarray) -> np.ndarray:
    """Normalization of the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    centred *= 1 / np.sqrt(variance + np.float32(EPSILON))
    return centred * weights["weight"] + weights["bias"]


def chain(_weights: Weights, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Scale, shift, activation, gate and residual."""
    z = x * np.float32(1.5)
    z += np.float32(0.25)
    np.maximum(z, 0, out=z)
    z *= y
    z += x
    return z


KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {f.__name__: f for f in (product, matmul, scores, norm, softmax, layer_norm, chain)}
)


class NumPy:
    """One function for each kernel."""

    version = np.__version__

    def prepare(self, job: Job) -> Prepared:
        """Nothing to compile."""
        kernel = KERNELS.get(job.kernel)
        if kernel is None or job.facts["dtypes"][0] != "float32":
            raise Unsupported("not written in NumPy")
        weights, inputs = weights_of(job.case()), job.inputs()
        return Prepared(lambda: kernel(weights, *inputs), arrays_in_order, {})


BACKEND = NumPy()
