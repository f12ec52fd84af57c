"""The errors of the house: the user's mistakes carry a code, a place and a cure; the rest are ours.

The classes live in ``treadle_runtime.errors``, so that an artifact that runs without the compiler
raises the same ones.
"""

from treadle_runtime.errors import (
    CodegenError,
    InternalError,
    LanguageModelError,
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

__all__ = [
    "CodegenError",
    "InternalError",
    "LanguageModelError",
    "LoweringError",
    "ModelImportError",
    "OptionError",
    "ParseError",
    "RuntimeFault",
    "ScheduleError",
    "TreadleError",
    "TypeMismatch",
    "VerifyError",
]
