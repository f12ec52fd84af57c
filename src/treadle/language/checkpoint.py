"""A model's folder as the Hugging Face hub lays it out: settings, weights, tokenizer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from treadle.base.errors import LanguageModelError
from treadle.language.config import DecoderConfig
from treadle.language.families import FAMILIES, Family
from treadle.language.weights import shapes

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
# What older versions stored and newer ones compute.
_BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".masked_bias", ".attention.bias")
_SHOWN = 5


def read_json(path: Path) -> dict[str, Any]:
    """A table in a file of JSON.

    Raises:
        LanguageModelError: E0910 if there is no such file, or none of JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LanguageModelError(
            "E0910",
            f"cannot read '{path}'",
            notes=(str(error).partition("\n")[0],),
            help="name a folder with config.json and *.safetensors, as save_pretrained writes it",
        ) from error
    if not isinstance(found, dict):
        raise LanguageModelError(
            "E0910", f"'{path}' holds no table", help="write it anew with save_pretrained"
        )
    return found


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a folder's ``*.safetensors`` by name, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: path for path in _files(folder) for name in _names(path)}

    def __getitem__(self, name: str) -> np.ndarray:
        with safe_open(self._files[name], "np") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _files(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        index = read_json(folder / _INDEX).get("weight_map", {})
        return [folder / name for name in dict.fromkeys(index.values())]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise LanguageModelError(
            "E0911",
            f"'{folder}' has no weights",
            help="put the model's *.safetensors there, or ask for random weights",
        )
    return found


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, "np") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise LanguageModelError(
            "E0911",
            f"cannot read weights from '{path}'",
            notes=(str(error).partition("\n")[0],),
            help="copy the file again",
        ) from error


def read_weights(folder: Path, config: DecoderConfig) -> dict[str, np.ndarray]:
    """The weights of a folder by the names that ``weights.shapes`` has, in their stored dtype.

    Raises:
        LanguageModelError: E0911 for a file that is missing or damaged, E0912 for tensors that are
            missing or left over, E0913 for one of another shape or dtype than expected.
    """
    return _Reader(config, FAMILIES[config.family], Tensors(folder), folder).read()


def check_shape(name: str, source: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``array``, which the tensor ``source`` gives for the weight ``name``.

    Raises:
        LanguageModelError: E0913 if it has another shape than ``shape``, or holds no floats.
    """
    if array.shape != shape or array.dtype.kind not in "fV":
        raise LanguageModelError(
            "E0913",
            f"the tensor '{source}' gives a {array.dtype} of shape {array.shape} for '{name}'",
            notes=(f"config.json asks for floats of shape {shape}",),
            help="use the config.json that belongs to the weights",
        )
    return array


def missing_tensors(folder: Path, names: Sequence[str], what: str) -> None:
    """Refuse a folder that ``what`` these tensors.

    Raises:
        LanguageModelError: E0912 if there are any.
    """
    if names:
        shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
        raise LanguageModelError(
            "E0912",
            f"'{folder}' {what} {len(names)} of the model's tensors",
            notes=(shown,),
            help="use the config.json that belongs to the weights",
        )


@dataclass(slots=True)
class _Reader:
    config: DecoderConfig
    family: Family
    tensors: Mapping[str, np.ndarray]
    folder: Path

    def read(self) -> dict[str, np.ndarray]:
        wanted = shapes(self.config)
        sources = {name: self.source(name) for name in wanted}
        self.check_names(sources)
        found: dict[str, np.ndarray] = {}
        for name, shape in wanted.items():
            array = self.converted(name, self.tensors[sources[name]])
            found[name] = check_shape(name, sources[name], array, shape)
        return found

    def source(self, name: str) -> str:
        """The tensor of the file that holds a weight."""
        *outer, part, kind = name.split(".")
        if not outer:
            where = self.family.outer[part]
            return self.prefixed(f"{where}.{kind}", part == "head")
        table = self.family.layer
        fused = next((t for n, t in table.items() if part in n.split("|")), None)
        assert fused is not None, name
        return self.prefixed(f"{self.family.layers}.{outer[1]}.{fused}.{kind}", False)

    def prefixed(self, name: str, is_head: bool) -> str:
        """The name with the family's prefix, as far as the file has it."""
        if is_head:
            old = name.replace("lm_head", "embed_out")
            return old if old in self.tensors else name
        candidates = (self.family.prefix + name, name, self.family.prefix.partition(".")[2] + name)
        return next((c for c in candidates if c in self.tensors), candidates[0])

    def check_names(self, sources: Mapping[str, str]) -> None:
        missing = [s for s in dict.fromkeys(sources.values()) if s not in self.tensors]
        heads = {self.prefixed("lm_head.weight", True)}
        used = {*sources.values(), *heads}
        extra = [n for n in self.tensors if n not in used and not n.endswith(_BUFFERS)]
        missing_tensors(self.folder, missing, "lacks")
        missing_tensors(self.folder, extra, "has, of no use to the model,")

    def converted(self, name: str, array: np.ndarray) -> np.ndarray:
        """A tensor of the file as the weight of that name."""
        *outer, part, _ = name.split(".")
        family = self.family
        if part == "positions":
            return array[family.skipped_positions :]
        if part.endswith("norm"):
            return array.astype(np.float32) + 1 if family.one_added else array
        if outer and family.transposed and array.ndim == 2:
            array = array.T
        if outer and any(part in n.split("|") for n in family.layer if "|" in n):
            return self.part_of(array, ("query", "key", "value").index(part))
        return array

    def part_of(self, array: np.ndarray, number: int) -> np.ndarray:
        """Queries, keys or values out of a tensor of all three."""
        config = self.config
        rows = config.heads * config.head_width
        if len(array) != 3 * rows:
            return array  # refused by its shape
        if not self.family.interleaved:
            return array[number * rows : (number + 1) * rows]
        split = array.reshape(config.heads, 3, config.head_width, *array.shape[1:])
        return split[:, number].reshape(rows, *array.shape[1:])
