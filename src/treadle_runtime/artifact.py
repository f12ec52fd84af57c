"""The artifact ``model.treadle``: a zip with the program's text, its weights, and cached objects.

Members: ``manifest.json``, ``module.py``, ``weights.safetensors``, ``objects/<cpu key>.o``. The
manifest holds the sha256 of every other member. A file is written whole or not at all, and whatever
is read is checked before it is used; nothing is ever unpacked to disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from treadle_runtime.array import aligned, storage_dtype
from treadle_runtime.errors import InternalError, RuntimeFault
from treadle_runtime.files import write_atomically
from treadle_runtime.manifest import Manifest

_MANIFEST = "manifest.json"
_MODULE = "module.py"
WEIGHTS = "weights.safetensors"
_OBJECT = re.compile(r"objects/([A-Za-z0-9_.-]{1,200})\.o")
_LARGEST_TEXT = 1 << 30
# A fixed time makes equal contents equal files.
_EPOCH = (1980, 1, 1, 0, 0, 0)

# What zipfile raises on damaged bytes.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, KeyError, ValueError, OverflowError,
    NotImplementedError, RuntimeError, IndexError, MemoryError,
)  # fmt: skip

SAFETENSORS = {
    "F16": "f16", "BF16": "bf16", "F32": "f32", "F64": "f64",
    "I8": "i8", "I16": "i16", "I32": "i32", "I64": "i64",
    "U8": "u8", "U16": "u16", "U32": "u32", "U64": "u64", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ArtifactContents:
    """What a ``model.treadle`` holds; weights are read-only, bf16 as in ``storage_dtype``."""

    module_text: str
    weights: Mapping[str, np.ndarray]
    manifest: Manifest
    objects: Mapping[str, bytes]

    def object_for(self, cpu_key: str, *, trusted: bool = False) -> bytes | None:
        """The cached machine code for a CPU, or None if there is none or the file is not trusted.

        Machine code does as it likes: say ``trusted`` only for files from people you trust.
        """
        return self.objects.get(cpu_key) if trusted else None


def write(
    path: str | os.PathLike[str],
    module_text: str,
    weights: Mapping[str, np.ndarray],
    manifest: Manifest,
    objects: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write an artifact; the file appears whole or not at all.

    Weights may be of any Treadle dtype; ``objects`` maps CPU keys to object code. Raises
    ``RuntimeFault`` E0710 if the file cannot be written, E0717 for a weight that cannot be stored.
    """
    members = {_MODULE: module_text.encode(), WEIGHTS: _pack(weights)}
    for key, code in objects.items():
        name = f"objects/{key}.o"
        if not _OBJECT.fullmatch(name):
            raise InternalError(f"{key!r} is not a CPU key")
        members[name] = code
    hashes = {name: _digest(data) for name, data in members.items()}
    text = replace(manifest, members=hashes).to_json().encode()

    def fill(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in {_MANIFEST: text, **members}.items():
                info = zipfile.ZipInfo(name, _EPOCH)
                # Weights do not shrink, and text does.
                stored = name == WEIGHTS
                info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                archive.writestr(info, data)

    write_atomically(path, fill)


def read(path: str | os.PathLike[str]) -> ArtifactContents:
    """Read an artifact and check every part of it.

    Raises ``RuntimeFault``: E0711 no such file, a folder, or no permission; E0712 not an artifact;
    E0713 damaged, cut short, or with parts that do not belong; E0714 a part with a wrong hash;
    E0720 a manifest that is damaged or of another version.
    """
    target = Path(path)
    try:
        with open(target, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise RuntimeFault(
                    "E0712",
                    f"'{target}' is not a Treadle artifact, or it is cut short",
                    help="name a file that Treadle saved, or copy it again",
                )
            return _read_zip(target, file)
    except OSError as error:
        if error.errno == errno.EINVAL:  # damaged offsets send a seek before the beginning
            raise _damaged(target, "its directory points outside the file") from error
        raise RuntimeFault(
            "E0711",
            f"cannot read '{target}'",
            notes=(error.strerror or str(error),),
            help="name a file that exists and that you may read",
        ) from error


def _read_zip(path: Path, file: IO[bytes]) -> ArtifactContents:
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(path, archive)
    except _DAMAGE as error:
        raise _damaged(path, str(error) or type(error).__name__) from error
    if _MANIFEST not in members:
        raise _damaged(path, f"{_MANIFEST} is missing")
    manifest = Manifest.from_json(members.pop(_MANIFEST))
    _check_hashes(path, members, manifest)
    try:
        module_text = members.pop(_MODULE).decode()
    except UnicodeDecodeError as error:
        raise _damaged(path, f"{_MODULE} is not text") from error
    weights = _unpack(path, members.pop(WEIGHTS))
    objects = {m[1]: code for name, code in members.items() if (m := _OBJECT.fullmatch(name))}
    return ArtifactContents(
        module_text, MappingProxyType(weights), manifest, MappingProxyType(objects)
    )


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    for info in archive.infolist():
        name = info.filename
        known = name in (_MANIFEST, _MODULE, WEIGHTS) or _OBJECT.fullmatch(name) is not None
        if not known or name in members:
            raise _damaged(path, f"the part {name!r} does not belong")
        # Deflated parts could unfold without end; weights are stored, so the file bounds them.
        if info.compress_type != zipfile.ZIP_STORED and info.file_size > _LARGEST_TEXT:
            raise _damaged(path, f"the part {name!r} is too large")
        members[name] = archive.read(info)
    return members


def _check_hashes(path: Path, members: Mapping[str, bytes], manifest: Manifest) -> None:
    missing = ({_MODULE, WEIGHTS} | manifest.members.keys()) - members.keys()
    if missing:
        raise _damaged(path, f"{min(missing)} is missing")
    for name, data in members.items():
        if manifest.members.get(name) != _digest(data):
            raise RuntimeFault(
                "E0714",
                f"'{path}': the part {name!r} does not have the hash that the manifest records",
                help="the file was changed after it was saved: copy it again, or save it again",
            )


def _pack(weights: Mapping[str, np.ndarray]) -> bytes:
    arrays = {name: _storable(name, array) for name, array in weights.items()}
    try:
        return save(arrays)
    except SafetensorError as error:
        raise RuntimeFault("E0717", "the weights cannot be stored", notes=(str(error),)) from error


def _storable(name: str, array: np.ndarray) -> np.ndarray:
    known = {storage_dtype(dtype) for dtype in SAFETENSORS.values()}
    little = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
    if little not in known:
        raise RuntimeFault(
            "E0717",
            f"the weight '{name}' has dtype {array.dtype}, which an artifact cannot hold",
            help="convert it to one of f16, bf16, f32, f64, i8 to i64, u8 to u64, bool",
        )
    return np.asarray(array, dtype=little, order="C")


def _unpack(path: Path, data: bytes) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    try:
        for name, tensor in deserialize(data):
            dtype = storage_dtype(SAFETENSORS[tensor["dtype"]])
            # Aligned now, so that an executable need not copy it again.
            array = aligned(np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"]))
            array.flags.writeable = False
            weights[name] = array
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise _damaged(path, f"{WEIGHTS}: {error}") from error
    return weights


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _damaged(path: Path, why: str) -> RuntimeFault:
    return RuntimeFault(
        "E0713",
        f"'{path}' is damaged",
        notes=(why,),
        help="copy the file again, or save the model again",
    )
