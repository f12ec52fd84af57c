"""Compile LLVM text to object code; run as a program, it serves requests on its standard input.

It imports nothing of Treadle, so that a worker process starts fast. A request is a line of JSON
(triple, cpu, features, bytes) and the text; the answer a line (``ok`` or ``error``, bytes) and the
object or the message.
"""

import json
import sys
from dataclasses import asdict, dataclass
from functools import cache
from typing import BinaryIO

import llvmlite.binding as llvm

_ALWAYS_INLINE = "alwaysinline"


@dataclass(frozen=True)
class Machine:
    """What LLVM is told of a target."""

    triple: str
    cpu: str
    features: str

    def header(self, size: int) -> bytes:
        """The first line of a request for a text of ``size`` bytes."""
        return json.dumps({**asdict(self), "bytes": size}).encode() + b"\n"


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def target_machine(machine: Machine) -> llvm.TargetMachine:
    """LLVM's code generator at level 2, position-independent."""
    _initialize()
    return llvm.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=2, reloc="pic", codemodel="small"
    )


def prepare(text: str, generator: llvm.TargetMachine) -> llvm.ModuleRef:
    """Read and check a module and run the passes that the code relies on.

    These are few: inlining of the math functions, and promotion of register arrays.

    Raises:
        RuntimeError: if the text is not valid LLVM IR.
    """
    module = llvm.parse_assembly(text)
    module.data_layout = str(generator.target_data)
    module.verify()
    builder = llvm.create_pass_builder(generator, llvm.create_pipeline_tuning_options(2))
    if _ALWAYS_INLINE in text:
        inliner = llvm.create_new_module_pass_manager()
        inliner.add_always_inliner_pass()
        inliner.run(module, builder)
    promote = llvm.create_new_function_pass_manager()
    promote.add_sroa_pass()
    for function in module.functions:
        if not function.is_declaration:
            promote.run(function, builder)
    return module


def emit_object(text: str, machine: Machine) -> bytes:
    """Compile one module.

    Raises:
        RuntimeError: if the text is not valid LLVM IR.
    """
    generator = target_machine(machine)
    return generator.emit_object(prepare(text, generator))


def emit_assembly(text: str, machine: Machine) -> str:
    """The machine code of one module as assembly text.

    Raises:
        RuntimeError: if the text is not valid LLVM IR.
    """
    generator = target_machine(machine)
    return generator.emit_assembly(prepare(text, generator))


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while line := requests.readline():
        fields = json.loads(line)
        text = requests.read(fields.pop("bytes")).decode()
        try:
            word, data = b"ok", emit_object(text, Machine(**fields))
        except RuntimeError as error:
            word, data = b"error", str(error).encode()
        answers.write(b"%s %d\n%s" % (word, len(data), data))
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
