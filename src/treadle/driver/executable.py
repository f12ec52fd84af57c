"""What ``compile`` returns: run it, look inside, measure it, save it."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from treadle.driver.build import Build
from treadle.ir.module import Module
from treadle.passes.winograd import Approximation
from treadle_runtime import artifact
from treadle_runtime import executable as runtime
from treadle_runtime.library import Callback
from treadle_runtime.loader import LoadedCode, host_cpu_key
from treadle_runtime.threads import Pool


class Executable(runtime.Executable):
    """A compiled model: call it with PyTorch tensors or NumPy arrays; it returns the like.

    ``module`` is the graph after the machine-independent passes; ``build`` holds what became of it.
    """

    def __init__(
        self,
        module: Module,
        build: Build,
        *,
        threads: int,
        code: LoadedCode | None = None,
        libraries: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.module = module
        self.build = build
        functions = libraries or {}
        callbacks = {
            name: Callback(name, functions[name])
            for name in build.entry.callbacks
            if name in functions
        }
        super().__init__(
            build.entry,
            build.link() if code is None else code,
            build.constants,
            pool=Pool(threads) if threads > 1 else None,
            callbacks=callbacks,
        )

    @property
    def approximations(self) -> tuple[Approximation, ...]:
        """What ``numerics="fast"`` computes by other algorithms than the model says, and with which
        error; nothing in other modes.
        """
        return self.build.approximations

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to ``path``: its text, its weights, and machine code for this CPU as a
        cache.

        Raises:
            RuntimeFault: E0710 if the file cannot be written.
        """
        weights = {name: c.array for name, c in self.module.constants.items()}
        artifact.write(
            path,
            str(self.module),
            weights,
            self.build.manifest,
            {host_cpu_key(): pack_objects(self.build.objects)},
        )


def pack_objects(objects: tuple[bytes, ...]) -> bytes:
    """Several objects as one run of bytes: each after its length."""
    return b"".join(len(o).to_bytes(8, "little") + o for o in objects)
