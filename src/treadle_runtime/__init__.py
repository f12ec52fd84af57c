"""Treadle's run time: arrays in, arrays out, on compiled code."""

from treadle_runtime.artifact import ArtifactContents
from treadle_runtime.artifact import read as read_artifact
from treadle_runtime.artifact import write as write_artifact
from treadle_runtime.errors import (
    CodegenError,
    InternalError,
    LoweringError,
    ModelImportError,
    OptionError,
    ParseError,
    RuntimeFault,
    ScheduleError,
    TreadleError,
    TypeMismatch,
    VerifyError,
)
from treadle_runtime.executable import Executable, exports_of
from treadle_runtime.library import Callback
from treadle_runtime.loader import LoadedCode, host_cpu_key, load, object_hash
from treadle_runtime.manifest import CallSpec, Check, Entry, Manifest, TensorSpec
from treadle_runtime.memory import MemoryUse
from treadle_runtime.profile import Profile, ProfileRow
from treadle_runtime.threads import Pool, runtime_symbols

__all__ = [
    "ArtifactContents",
    "CallSpec",
    "Callback",
    "Check",
    "CodegenError",
    "Entry",
    "Executable",
    "InternalError",
    "LoadedCode",
    "LoweringError",
    "Manifest",
    "MemoryUse",
    "ModelImportError",
    "OptionError",
    "ParseError",
    "Pool",
    "Profile",
    "ProfileRow",
    "RuntimeFault",
    "ScheduleError",
    "TensorSpec",
    "TreadleError",
    "TypeMismatch",
    "VerifyError",
    "exports_of",
    "host_cpu_key",
    "load",
    "object_hash",
    "read_artifact",
    "runtime_symbols",
    "write_artifact",
]
