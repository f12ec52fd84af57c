"""The constants of position schemes: angles for rotary embeddings, slopes for ALiBi."""

import math

import numpy as np

from treadle.language.config import Relative, Rotary


def frequencies(rotary: Rotary) -> np.ndarray:
    """The angle per position of each pair of elements, f32 of shape (width / 2,).

    Source: Su et al., "RoFormer"; the scaled variants as in Llama 3.1, in position interpolation
    (Chen et al.) and in YaRN (Peng et al., arXiv 2309.00071, section 3.2).
    """
    exponents = np.arange(0, rotary.width, 2, dtype=np.float32) / np.float32(rotary.width)
    found = (1.0 / np.float32(rotary.theta) ** exponents).astype(np.float32)
    if rotary.scaling == "linear":
        return found / np.float32(rotary.factor)
    if rotary.scaling == "llama3":
        return _interpolated(found, rotary)
    if rotary.scaling == "yarn":
        slow = (1 - _kept(rotary)).astype(np.float32)
        return found * (1 - slow) + found / np.float32(rotary.factor) * slow
    return found


def _kept(rotary: Rotary) -> np.ndarray:
    """Which part of its frequency each pair keeps."""

    def pair(turns: float) -> float:
        """The pair, perhaps between two, that turns so many times in the original length."""
        wavelength = rotary.original / turns
        return rotary.width * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rotary.theta))

    first, last = pair(rotary.high), pair(rotary.low)
    if rotary.whole:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotary.width - 1)
    # Where both are one pair, it still is divided as the slower ones are.
    steps = (np.arange(rotary.width // 2) - first) / max(last - first, 0.001)
    return 1 - np.clip(steps, 0, 1)


def _interpolated(found: np.ndarray, rotary: Rotary) -> np.ndarray:
    wavelength = (2 * math.pi / found).astype(np.float32)
    longest, shortest = rotary.original / rotary.low, rotary.original / rotary.high
    slow = found / np.float32(rotary.factor)
    part = (rotary.original / wavelength - rotary.low) / (rotary.high - rotary.low)
    between = (1 - part) * slow + part * found
    scaled = np.where(wavelength > longest, slow, np.where(wavelength < shortest, found, between))
    return scaled.astype(np.float32)


def slopes(heads: int) -> np.ndarray:
    """How fast scores fall with the distance, f32 of shape (heads,).

    Source: Press et al., "Train short, test long": a geometric sequence for powers of two; other
    numbers of heads take every other slope of the next power for what is missing.
    """
    power = 2 ** math.floor(math.log2(heads))
    found = _geometric(power)
    if power < heads:
        found = np.concatenate([found, _geometric(2 * power)[0::2][: heads - power]])
    return found


def _geometric(count: int) -> np.ndarray:
    base = np.float32(2.0 ** -(2.0 ** -(math.log2(count) - 3)))
    return (base ** np.arange(1, count + 1, dtype=np.int32)).astype(np.float32)


def buckets(relative: Relative, both: bool) -> np.ndarray:
    """The bucket of each distance, i64: from 0 to ``farthest`` back; with ``both``, from
    ``farthest`` back to as far ahead.

    Source: Raffel et al., "Exploring the limits of transfer learning": half of the buckets of a
    direction stand for one distance each, the others for ranges that grow by a constant factor.
    """
    count = relative.buckets // 2 if both else relative.buckets
    exact = count // 2
    distance = np.arange(relative.farthest + 1, dtype=np.float32)
    growth = np.log(np.maximum(distance, 1) / np.float32(exact)).astype(np.float32)
    share = growth / np.float32(math.log(relative.farthest / exact)) * np.float32(count - exact)
    large = np.minimum(exact + share.astype(np.int64), count - 1)
    back = np.where(distance < exact, distance.astype(np.int64), large)
    return np.concatenate([back[:0:-1], back[:1], back[1:] + count]) if both else back
