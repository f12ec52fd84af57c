"""Make object code callable: check it, link it into the process, give addresses of functions."""

from __future__ import annotations

import hashlib
import platform
import struct
import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import llvmlite.binding as llvm
from llvmlite.binding.orcjit import LLJIT, ResourceTracker

from treadle_runtime.errors import InternalError, RuntimeFault

# The file header of ELF: class, byte order, and then type and machine at byte 16.
_ELF_HEADER = 64
_ELF64_LITTLE = b"\x7fELF\x02\x01\x01"
_RELOCATABLE = 1
_SYMBOL_TABLE = 2
_SYMBOL_BYTES = 24
_ELF_MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183, "riscv64": 243}
_RECOMPILE = "compile the model again on this machine"


@cache
def host_cpu_key() -> str:
    """Name the machine code that this process can run: architecture, CPU, its features, and LLVM.

    Two machines with one key run each other's objects; the key is a valid file name.
    """
    features = llvm.get_host_cpu_features().flatten()
    version = ".".join(map(str, llvm.llvm_version_info))
    digest = hashlib.sha256(f"{features} {version}".encode()).hexdigest()[:16]
    return f"{platform.machine().lower()}-{sys.platform}-{llvm.get_host_cpu_name()}-{digest}"


@cache
def init_native_target() -> None:
    """Make LLVM's code generator and assembler for this machine ready; later calls do nothing."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def native_machine() -> llvm.TargetMachine:
    """A code generator for exactly this CPU, at level 2.

    Position-independent code of the small model: the linker adds a stub wherever a function is far.
    """
    init_native_target()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="small",
    )


def compile_text(text: str) -> bytes:
    """Compile LLVM IR text to object code for this CPU.

    Raises ``InternalError`` if the text is not valid: it is always written by a program.
    """
    init_native_target()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise InternalError(f"invalid LLVM IR: {error}") from error
    return native_machine().emit_object(module)


def object_hash(code: bytes) -> str:
    """The sha256 of object code, as it is kept beside a cached object."""
    return hashlib.sha256(code).hexdigest()


def check_object(code: bytes, expected_hash: str | None = None) -> None:
    """Refuse bytes that the linker could choke on.

    LLVM may end the process on a damaged object, so nothing reaches it unseen.

    Raises ``RuntimeFault`` E0730 (not an object file), E0731 (another CPU), E0732 (wrong hash).
    """
    if sys.platform == "linux":
        _check_elf(code)
    if expected_hash is not None and object_hash(code) != expected_hash:
        raise RuntimeFault(
            "E0732",
            "the object code does not match its recorded hash",
            notes=(f"expected sha256 {expected_hash}", f"the bytes have {object_hash(code)}"),
            help=_RECOMPILE,
        )


def _check_elf(code: bytes) -> None:
    if len(code) < _ELF_HEADER or not code.startswith(_ELF64_LITTLE):
        raise RuntimeFault("E0730", "the bytes are not a 64-bit ELF object", help=_RECOMPILE)
    kind, machine = struct.unpack_from("<HH", code, 16)
    (sections,) = struct.unpack_from("<Q", code, 40)
    entry_size, count = struct.unpack_from("<HH", code, 58)
    if kind != _RELOCATABLE or sections + entry_size * count > len(code):
        raise RuntimeFault(
            "E0730", "the object code is cut short or not relocatable", help=_RECOMPILE
        )
    host = _ELF_MACHINES.get(platform.machine().lower())
    if machine != host:
        raise RuntimeFault(
            "E0731",
            "the object code is for another kind of CPU",
            notes=(f"ELF machine {machine}; this process runs {platform.machine()}",),
            help=_RECOMPILE,
        )


@dataclass(frozen=True, eq=False, weakref_slot=True, slots=True)
class LoadedCode:
    """Functions of linked code by name; the code stays in memory as long as this object lives."""

    addresses: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        """The address of function ``name``."""
        return self.addresses[name]


def load(
    code: bytes | Sequence[bytes],
    exports: Iterable[str],
    imports: Mapping[str, int] = MappingProxyType({}),
    *,
    expected_hash: str | None = None,
) -> LoadedCode:
    """Link object code (one object or several that call each other) and find ``exports`` in it.

    ``imports`` defines symbols by address; all others (``memcpy``, ``expf``) come from the process.
    LLVM trusts an object: pass ``expected_hash`` for bytes that were stored.

    Raises what ``check_object`` raises, and ``RuntimeFault`` E0733 for a symbol that is missing.
    """
    objects = (code,) if isinstance(code, bytes) else tuple(code)
    init_native_target()
    builder = llvm.JITLibraryBuilder()
    for item in objects:
        check_object(item, expected_hash)
        builder.add_object_img(item)
    builder.add_current_process()
    names = tuple(exports)
    for name in names:
        builder.export_symbol(name)
    for name, address in imports.items():
        builder.import_symbol(name, address)
    jit = llvm.create_lljit_compiler(native_machine(), use_jit_link=True, suppress_errors=True)
    try:
        tracker = builder.link(jit, "treadle")
    except RuntimeError as error:
        jit.close()
        raise RuntimeFault(
            "E0733",
            "the object code cannot be linked",
            notes=(" ".join(str(error).split()), *_missing(b"".join(objects[-1:]), imports)),
            help=_RECOMPILE,
        ) from error
    loaded = LoadedCode({name: tracker[name] for name in names})
    # At exit the code stays: threads that Python no longer waits for may still be inside it.
    weakref.finalize(loaded, _unload, tracker, jit).atexit = False
    return loaded


def load_text(
    text: str, exports: Iterable[str], imports: Mapping[str, int] = MappingProxyType({})
) -> LoadedCode:
    """Compile LLVM IR text and load it; for small modules that the run time itself writes."""
    return load(compile_text(text), exports, imports)


def _unload(tracker: ResourceTracker, jit: LLJIT) -> None:
    # In this order: a library must go before the linker that made it.
    tracker.close()
    jit.close()


def _missing(code: bytes, imports: Mapping[str, int]) -> tuple[str, ...]:
    """A note with the symbols that neither ``imports`` nor the process defines, if any."""
    if sys.platform != "linux":
        return ()
    names = [
        name
        for name in _undefined_symbols(code)
        if name not in imports and llvm.address_of_symbol(name) is None
    ]
    return (f"missing symbols: {', '.join(names)}",) if names else ()


def _undefined_symbols(code: bytes) -> list[str]:
    """Names that an ELF object leaves to others: entries of its symbol table without a section."""
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQII", code, start + size * i) for i in range(count)]
    names: list[str] = []
    for _, kind, _, _, offset, length, link, _ in sections:
        if kind != _SYMBOL_TABLE:
            continue
        texts = sections[link][4]
        for at in range(offset, offset + length, _SYMBOL_BYTES):
            name_at, _, _, section = struct.unpack_from("<IBBH", code, at)
            if name_at and section == 0:
                begin = texts + name_at
                names.append(code[begin : code.index(0, begin)].decode())
    return names
