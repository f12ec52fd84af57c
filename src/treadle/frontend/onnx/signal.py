"""Windows, Fourier transforms and filter banks, as products with matrices."""

import numpy as np

from treadle.base.errors import ModelImportError
from treadle.expr.scalar import as_expr, int_value
from treadle.frontend.onnx.compose import (
    add,
    axis_of,
    cast,
    concat,
    cut,
    element_type,
    insert_axis,
    matmul,
    mul,
    permute,
    reshape,
    sub,
    widened,
)
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.movement import sliced
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known
from treadle.ir.graph_builder import Traced
from treadle.ops import Gather, Pad


def _window(
    site: Site, size: Known, periodic: int, output_datatype: int, coefficients: tuple[float, ...]
) -> Traced:
    """Σ (-1)^k c_k cos(2 π k n / N), N the size, less one unless the window is periodic."""
    count = size.integer()
    n = np.arange(count, dtype=np.float64)
    turn = 2 * np.pi * n / (count if periodic else max(count - 1, 1))
    values = sum((-1) ** k * c * np.cos(k * turn) for k, c in enumerate(coefficients))
    return site.constant(np.asarray(values).astype(element_type(output_datatype).numpy))


@converter("HannWindow", since=17)
def hann(site: Site, size: Known, *, output_datatype: int = 1, periodic: int = 1) -> Traced:
    """(1 - cos) / 2."""
    return _window(site, size, periodic, output_datatype, (0.5, 0.5))


@converter("HammingWindow", since=17)
def hamming(site: Site, size: Known, *, output_datatype: int = 1, periodic: int = 1) -> Traced:
    """25/46 - 21/46 cos."""
    return _window(site, size, periodic, output_datatype, (25 / 46, 21 / 46))


@converter("BlackmanWindow", since=17)
def blackman(site: Site, size: Known, *, output_datatype: int = 1, periodic: int = 1) -> Traced:
    """0.42 - 0.5 cos + 0.08 cos 2."""
    return _window(site, size, periodic, output_datatype, (0.42, 0.5, 0.08))


def _fitted(x: Traced, axis: int, length: int) -> Traced:
    """Cropped, or padded with zeros at the end, to a length."""
    size = int_value(x.shape[axis])
    if size is None:
        raise ModelImportError(
            "E0607",
            "the length of a Fourier transform must be known",
            help="give the model fixed dimensions",
        )
    if size >= length:
        return cut(x, axis, 0, length)
    pads = [(as_expr(0), as_expr(0))] * x.ndim
    pads[axis] = (as_expr(0), as_expr(length - size))
    return Pad(tuple(pads))(x)


def transformed(site: Site, x: Traced, axis: int, length: int, inverse: bool, bins: int) -> Traced:
    """The first ``bins`` of a discrete Fourier transform along ``axis``; the last axis holds real
    and imaginary parts."""
    wide = _fitted(widened(x), axis, length)
    order = [k for k in range(x.ndim) if k != axis]
    order.insert(-1, axis)
    moved = permute(wide, *order)
    turn = (
        (2 if inverse else -2)
        * np.pi
        * np.outer(np.arange(length), np.arange(bins) % length)
        / length
    )
    scale = 1 / length if inverse else 1.0
    dtype = wide.dtype.numpy
    cosines, sines = (site.constant((f(turn) * scale).astype(dtype)) for f in (np.cos, np.sin))
    last = moved.ndim - 1
    real = reshape(cut(moved, last, 0, 1), *moved.shape[:last])
    a, b = matmul(real, cosines), matmul(real, sines)
    if int_value(moved.shape[last]) == 2:
        imaginary = reshape(cut(moved, last, 1, 2), *moved.shape[:last])
        a, b = sub(a, matmul(imaginary, sines)), add(b, matmul(imaginary, cosines))
    joined = concat([insert_axis(a, last), insert_axis(b, last)], last)
    back = [order.index(k) for k in range(x.ndim)]
    return cast(permute(joined, *back), x.dtype)


def _real_inverse(site: Site, x: Traced, axis: int, length: int) -> Traced:
    """The real signal of the first half of a spectrum, whose other half is its mirror image,
    conjugated."""
    half = length // 2 + 1
    kept = _fitted(x, axis, half)
    mirrored = sliced(kept, axis, as_expr(length - half), as_expr(0), -1)
    signs = site.constant(np.array([1, -1], x.dtype.numpy))
    whole = concat([kept, mul(mirrored, signs)], axis)
    full = transformed(site, whole, axis, length, inverse=True, bins=length)
    return cut(full, x.ndim - 1, 0, 1)


def _dft(
    site: Site, x: Traced, length: int | None, axis: int, inverse: bool, onesided: bool
) -> Traced:
    size = int_value(x.shape[axis])
    if length is None and size is None:
        raise ModelImportError(
            "E0607",
            "the length of a Fourier transform must be known",
            help="give the model fixed dimensions",
        )
    if inverse and onesided:
        return _real_inverse(site, x, axis, length or 2 * ((size or 1) - 1))
    count = length or size or 1
    return transformed(site, x, axis, count, inverse, count // 2 + 1 if onesided else count)


@converter("DFT", since=20)
def dft(
    site: Site,
    x: Traced,
    length: Known | None = None,
    axis: Known | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Traced:
    """Along an axis that is an input."""
    k = axis_of(-2 if axis is None else axis.integer(), x.ndim)
    return _dft(
        site, x, None if length is None else length.integer(), k, bool(inverse), bool(onesided)
    )


@converter("DFT", since=17)
def dft_attribute(
    site: Site,
    x: Traced,
    length: Known | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Traced:
    """Along an axis that is an attribute."""
    k = axis_of(axis, x.ndim)
    return _dft(
        site, x, None if length is None else length.integer(), k, bool(inverse), bool(onesided)
    )


@converter("STFT", since=17)
def stft(
    site: Site,
    signal: Traced,
    step: Known,
    window: Traced | None = None,
    frame_length: Known | None = None,
    *,
    onesided: int = 1,
) -> Traced:
    """Transforms of overlapping frames, weighted by a window."""
    x = signal if signal.ndim == 3 else insert_axis(signal, 2)
    size = int_value(x.shape[1])
    inner = frame_length.integer() if frame_length is not None else None
    length = inner if inner is not None or window is None else int_value(window.shape[0])
    if size is None or length is None:
        raise ModelImportError(
            "E0607", "the lengths of signal and frame must be known", help="fix the dimensions"
        )
    stride = step.integer()
    count = 1 + (size - length) // stride
    places = np.arange(count)[:, None] * stride + np.arange(length)
    frames = Gather(1)(x, site.constant(places))
    if window is not None:
        frames = mul(frames, reshape(window, length, 1))
    return transformed(
        site, frames, 2, length, inverse=False, bins=length // 2 + 1 if onesided else length
    )


@converter("MelWeightMatrix", since=17)
def mel_weight_matrix(
    site: Site,
    num_mel_bins: Known,
    dft_length: Known,
    sample_rate: Known,
    lower_edge_hertz: Known,
    upper_edge_hertz: Known,
    *,
    output_datatype: int = 1,
) -> Traced:
    """Triangular filters, evenly spaced in mels: (bins of the spectrum, filters)."""
    bins, length, rate = num_mel_bins.integer(), dft_length.integer(), sample_rate.integer()
    edges = np.array([lower_edge_hertz.item(), upper_edge_hertz.item()], np.float64)
    low, high = 2595 * np.log10(1 + edges / 700)
    mels = low + np.arange(bins + 2) * ((high - low) / (bins + 2))
    hertz = 700 * (10 ** (mels / 2595) - 1)
    places = ((length + 1) * hertz // rate).astype(int)
    k = np.arange(length // 2 + 1)[:, None]
    left, center, right = places[:-2], places[1:-1], places[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising = np.where((k >= left) & (k <= center), (k - left) / (center - left), 0.0)
        falling = np.where((k > center) & (k < right), (right - k) / (right - center), 0.0)
    weights = np.where(center == left, np.where(k == center, 1.0, falling), rising + falling)
    return site.constant(weights.astype(element_type(output_datatype).numpy))


CONVERTERS = (hann, hamming, blackman, dft, dft_attribute, stft, mel_weight_matrix)
