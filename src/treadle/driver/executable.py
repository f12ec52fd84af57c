"""What ``compile`` returns: run it, look inside, measure it, save it."""

import os
from collections.abc import Mapping

from treadle.base.errors import RuntimeFault
from treadle.driver.build import Build
from treadle.ir.module import Module
from treadle.passes.lower_libraries import LibraryChoice
from treadle.passes.winograd import Approximation
from treadle_runtime import artifact
from treadle_runtime import executable as runtime
from treadle_runtime.library import Callback, NativeFunction
from treadle_runtime.loader import LoadedCode, host_cpu_key
from treadle_runtime.threads import Pool


class Executable(runtime.Executable):
    """A compiled model: call it with PyTorch tensors or NumPy arrays; it returns the like.

    ``module`` is the graph after the machine-independent passes; ``build`` holds what became of it.
    ``library_choices`` are the parts that a library could compute, and what does, with the reason.
    """

    def __init__(
        self,
        module: Module,
        build: Build,
        *,
        threads: int,
        code: LoadedCode | None = None,
        callees: Mapping[str, Callback | NativeFunction] | None = None,
        library_choices: tuple[LibraryChoice, ...] = (),
    ) -> None:
        self.module = module
        self._saves = True
        self.build = build
        self.library_choices = library_choices
        super().__init__(
            build.entry,
            build.link() if code is None else code,
            build.constants,
            pool=Pool(threads) if threads > 1 else None,
            callbacks=callees or {},
        )

    @property
    def approximations(self) -> tuple[Approximation, ...]:
        """What ``numerics="fast"`` computes by other algorithms than the model says, and with which
        error; nothing in other modes.
        """
        return self.build.approximations

    def forget_weights(self) -> None:
        """Give up the weights as the model has them, which only ``save`` needs: the program has its
        own, in the order that it reads them. Halves the memory of large models.
        """
        self.module = self.module.with_constants({})
        self._saves = False

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to ``path``: its text, its weights, and machine code for this CPU as a
        cache.

        Raises:
            RuntimeFault: E0710 if the file cannot be written, E0715 after ``forget_weights``.
        """
        if not self._saves:
            raise RuntimeFault(
                "E0715",
                "the weights that would be saved were given up",
                help="save before forget_weights(), or keep the weights",
            )
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
