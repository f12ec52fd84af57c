"""Machines that code is made for: instruction set, registers, caches."""

import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm

from treadle.base.errors import OptionError

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """What code generation and schedules know of a machine.

    ``features`` are LLVM's names of the extensions that may be used. ``vector_bits`` and
    ``vector_registers`` are width and number of the vector registers; ``l1_bytes``, ``l2_bytes``
    (per core) and ``l3_bytes`` (shared) are the data caches.
    """

    name: str
    triple: str
    cpu: str
    features: frozenset[str]
    vector_bits: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    cores: int
    has_fma: bool

    @property
    def arch(self) -> str:
        """The kind of CPU, as ``uname -m`` names it."""
        return self.triple.split("-", 1)[0]

    @property
    def feature_text(self) -> str:
        """The features in LLVM's notation."""
        return ",".join(f"+{name}" for name in sorted(self.features))

    @property
    def key(self) -> tuple[str, ...]:
        """What machine code depends on, for caches: triple, CPU, features and version of LLVM."""
        version = ".".join(map(str, llvm.llvm_version_info))
        return self.triple, self.cpu, self.feature_text, version

    def lanes(self, bits: int) -> int:
        """How many elements of ``bits`` fit in one vector register."""
        return max(1, self.vector_bits // max(8, bits))

    @staticmethod
    def native() -> "Target":
        """The machine that this process runs on."""
        return _native()

    @staticmethod
    def parse(name: str) -> "Target":
        """The target that is called ``name``: ``native`` or an architecture level.

        Raises:
            OptionError: E0810 if there is no such target; the message lists those that exist.
        """
        if name == "native":
            return _native()
        found = _level(name)
        if found is None:
            raise OptionError(
                "E0810",
                f"there is no target {name!r}",
                help=f"use one of: {', '.join(target_names())}",
            )
        return found


def target_names() -> tuple[str, ...]:
    """The names that ``Target.parse`` knows."""
    return ("native", *_LEVELS)


_V2 = frozenset({"sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "sahf"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_COOPERLAKE = _V4 | {"avx512vnni", "avx512bf16"}
_ALDERLAKE = _V3 | {"avxvnni"}
_NEON = frozenset({"neon"})
_NEOVERSE = _NEON | {"dotprod", "fullfp16"}
# Triple, CPU, features, vector bits, vector registers.
_LEVELS: dict[str, tuple[str, str, frozenset[str], int, int]] = {
    "x86-64-v2": ("x86_64-unknown-linux-gnu", "x86-64-v2", _V2, 128, 16),
    "x86-64-v3": ("x86_64-unknown-linux-gnu", "x86-64-v3", _V3, 256, 16),
    "x86-64-v4": ("x86_64-unknown-linux-gnu", "x86-64-v4", _V4, 512, 32),
    "cooperlake": ("x86_64-unknown-linux-gnu", "cooperlake", _COOPERLAKE, 512, 32),
    "alderlake": ("x86_64-unknown-linux-gnu", "alderlake", _ALDERLAKE, 256, 16),
    "aarch64": ("aarch64-unknown-linux-gnu", "generic", _NEON, 128, 32),
    "neoverse-n1": ("aarch64-unknown-linux-gnu", "neoverse-n1", _NEOVERSE, 128, 32),
}


def _level(name: str) -> Target | None:
    level = _LEVELS.get(name)
    if level is None:
        return None
    triple, cpu, features, bits, registers = level
    return Target(
        name,
        triple,
        cpu,
        features,
        bits,
        registers,
        l1_bytes=32 * _KIB,
        l2_bytes=512 * _KIB,
        l3_bytes=8 * _KIB * _KIB,
        cores=4,
        has_fma="fma" in features or triple.startswith("aarch64"),
    )


@cache
def _native() -> Target:
    features = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    triple = llvm.get_process_triple()
    bits, registers = _vector_unit(triple, features)
    caches = _cache_sizes()
    return Target(
        "native",
        triple,
        llvm.get_host_cpu_name(),
        features,
        bits,
        registers,
        l1_bytes=caches.get(1, 32 * _KIB),
        l2_bytes=caches.get(2, 512 * _KIB),
        l3_bytes=caches.get(3, 8 * _KIB * _KIB),
        cores=_cores(),
        has_fma="fma" in features or triple.startswith(("aarch64", "arm64")),
    )


def _vector_unit(triple: str, features: frozenset[str]) -> tuple[int, int]:
    if triple.startswith(("aarch64", "arm64")):
        return 128, 32
    if {"avx512f", "avx512vl", "avx512bw", "avx512dq"} <= features:
        return 512, 32
    return (256, 16) if "avx2" in features else (128, 16)


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cache_sizes() -> dict[int, int]:
    """Bytes of the data caches by level, where the system says so (Linux's sysfs)."""
    sizes: dict[int, int] = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            size = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size.endswith("K"):
            sizes[level] = int(size[:-1]) * _KIB
    return sizes
