"""Inputs of a model from files, or random ones by shape."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from treadle.base.errors import OptionError
from treadle_runtime.array import numpy_dtype
from treadle_runtime.dims import evaluate, variables
from treadle_runtime.manifest import Entry, TensorSpec

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Given:
    """What the user said of the inputs: arrays by name and in order, shapes by name, dimensions."""

    named: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    listed: Sequence[np.ndarray] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    dims: Mapping[str, int] = field(default_factory=dict[str, int])


def parse_dims(texts: Sequence[str] | None) -> dict[str, int]:
    """``["batch=2"]`` as a mapping.

    Raises:
        OptionError: E0840 for anything else.
    """
    return {name: _size(text, value) for text in texts or () for name, value in [_pair(text)]}


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """``["x=2x128"]`` as a mapping; ``x=`` is a tensor of rank 0.

    Raises:
        OptionError: E0840 for anything else.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, value = _pair(text)
        found[name] = tuple(_size(text, d) for d in value.split("x")) if value else ()
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise _unreadable(text)
    return name.strip(), value.strip()


def _size(text: str, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise _unreadable(text)
    return int(value)


def _unreadable(text: str) -> OptionError:
    return OptionError(
        "E0840",
        f"'{text}' does not say a size",
        help="write --dim batch=2 for a dimension, --input x=2x128 for a shape",
    )


def read_arrays(paths: Sequence[Path]) -> tuple[Arrays, list[np.ndarray]]:
    """Arrays by name from ``.npz`` files, and in order from ``.npy`` files.

    Raises:
        OptionError: E0841 if a file cannot be read.
    """
    named: Arrays = {}
    listed: list[np.ndarray] = []
    for path in paths:
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                listed.append(loaded)
            else:
                with loaded:
                    named.update({name: loaded[name] for name in loaded.files})
        except (OSError, ValueError, EOFError) as error:
            raise OptionError(
                "E0841",
                f"cannot read arrays from '{path}'",
                notes=(str(error).partition("\n")[0],),
                help="pass .npy or .npz files that numpy.save or numpy.savez wrote",
            ) from error
    return named, listed


def make_inputs(entry: Entry, given: Given, seed: int) -> Arrays:
    """The inputs of ``entry`` in its order: those given, and random ones for the rest.

    Raises:
        OptionError: E0842 for a name that the model does not have, E0843 for a dimension without a
            value.
    """
    _check_names(entry, given)
    files = iter(given.listed)
    arrays: Arrays = {}
    rest: list[TensorSpec] = []
    for spec in entry.inputs:
        if spec.name in given.named:
            arrays[spec.name] = given.named[spec.name]
        elif spec.name not in given.shapes and (array := next(files, None)) is not None:
            arrays[spec.name] = array
        else:
            rest.append(spec)
    dims = _solve(entry, given, arrays)
    random = np.random.default_rng(seed)
    for spec in rest:
        shape = given.shapes.get(spec.name)
        arrays[spec.name] = _random(
            spec, shape or tuple(_value(d, dims, entry) for d in spec.dims), random
        )
    return {spec.name: arrays[spec.name] for spec in entry.inputs}


def _check_names(entry: Entry, given: Given) -> None:
    names = tuple(spec.name for spec in entry.inputs)
    for name in (*given.named, *given.shapes):
        if name not in names:
            raise _unknown("input", name, names, entry)
    for name in given.dims:
        if name not in entry.symbols:
            raise _unknown("dimension", name, entry.symbols, entry)
    taken = len([n for n in names if n in given.named or n in given.shapes])
    if len(given.listed) > len(names) - taken:
        raise OptionError(
            "E0842",
            f"{len(given.listed)} .npy files are given for {len(names) - taken} inputs",
            notes=(entry.signature,),
            help="pass one file for each input, in order",
        )


def _unknown(what: str, name: str, known: Sequence[str], entry: Entry) -> OptionError:
    return OptionError(
        "E0842",
        f"the model has no {what} '{name}'",
        notes=(entry.signature,),
        help=f"use one of: {', '.join(known)}" if known else f"leave it out: there is no {what}",
    )


def _solve(entry: Entry, given: Given, arrays: Arrays) -> dict[str, int]:
    """Values of the symbols: as said, or from the axes of given inputs that are just a symbol."""
    dims = dict(given.dims)
    shapes = {**{name: a.shape for name, a in arrays.items()}, **given.shapes}
    for spec in entry.inputs:
        for dim, size in zip(spec.dims, shapes.get(spec.name, ()), strict=False):
            if isinstance(dim, str) and dim in entry.symbols:
                dims.setdefault(dim, size)
    return dims


def _value(dim: int | str, dims: Mapping[str, int], entry: Entry) -> int:
    missing = sorted(variables(dim) - dims.keys())
    if missing:
        raise OptionError(
            "E0843",
            f"the dimension '{missing[0]}' has no value",
            notes=(entry.signature,),
            help=f"add --dim {missing[0]}=8",
        )
    return evaluate(dim, dims)


def _random(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    dtype = numpy_dtype(spec.dtype)
    if spec.dtype in ("f16", "bf16", "f32", "f64"):
        return random.standard_normal(shape).astype(dtype)
    # 0 and 1 are good indices, masks and token numbers of every model.
    return np.asarray(random.integers(0, 2, shape)).astype(dtype)
