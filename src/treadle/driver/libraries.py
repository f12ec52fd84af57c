"""The libraries that a user hands to a compilation: checked, opened, and told apart by kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import fspath
from typing import Any, TypeAlias

from treadle.base.errors import OptionError, RuntimeFault
from treadle.driver.options import Options
from treadle.ir.calls import CallLibrary
from treadle.ir.module import Module
from treadle.libraries.library import Library, Lowering
from treadle.libraries.measurements import Measurements
from treadle.passes.lower_libraries import LibraryChoice
from treadle_runtime.library import Callback, NativeFunction, native_functions

Functions: TypeAlias = Mapping[str, Callable[..., Any]]
Libraries: TypeAlias = Functions | Sequence[Library | Functions]
Callee: TypeAlias = Callback | NativeFunction


@dataclass(frozen=True, slots=True)
class GivenLibraries:
    """What may be called from a program: libraries, and Python functions by name."""

    libraries: tuple[Library, ...]
    functions: Functions
    opened: Mapping[str, NativeFunction]

    @property
    def natives(self) -> dict[str, Lowering]:
        """The C functions by the names that programs call them."""
        return {name: x for name, x in self._lowerings() if x.prototype is not None}

    def options(
        self,
        options: Options,
        measurements: Measurements | None = None,
        report: Callable[[LibraryChoice], None] | None = None,
    ) -> dict[str, Any]:
        """The options of the pass ``lower_libraries``."""
        return {
            "libraries": self.libraries,
            "measurements": measurements,
            "machine": "/".join(options.target.key),
            "threads": options.threads,
            "strict": options.strict,
            "report": report,
        }

    def callees(self, names: Sequence[str]) -> dict[str, Callee]:
        """Those of the functions called ``names`` that were given, as native code calls them."""
        known: dict[str, Callee] = dict(self.opened)
        for name, x in self._lowerings():
            if not isinstance(x.function, str):
                known[name] = Callback(name, x.function, destination=True)
        for name, function in self.functions.items():
            known[name] = Callback(name, function)
        return {name: known[name] for name in names if name in known}

    def require(self, graph: Module) -> None:
        """Check that the functions of libraries that a program calls were given.

        Raises:
            RuntimeFault: E0726 for one of a library that was not, or that does not have it.
        """
        known = {*self.functions, *(name for name, _ in self._lowerings())}
        for name in called(graph):
            library, dot, function = name.partition(".")
            if not dot or name in known:
                continue
            given = ", ".join(x.name for x in self.libraries) or "none"
            raise RuntimeFault(
                "E0726",
                f"the program calls '{function}' of the library '{library}', which is missing",
                notes=(f"the libraries that were given: {given}",),
                help=f"pass the library: libraries=[{library}]; or compile the model again"
                " without it",
            )

    def _lowerings(self) -> list[tuple[str, Lowering]]:
        return [(x.full_name(f), f) for x in self.libraries for f in x.lowerings]


def given_libraries(given: Libraries | None, found: Functions | None = None) -> GivenLibraries:
    """Sort what a user passes as ``libraries``, and the functions that a front end ``found``.

    Raises:
        OptionError: E0852 for two libraries of one name, E0854 for something that is no library.
        RuntimeFault: E0727 for a library that cannot be opened, E0725 for a function that it lacks.
    """
    items = () if given is None else (given,) if isinstance(given, Mapping) else tuple(given)
    libraries: list[Library] = []
    functions: dict[str, Callable[..., Any]] = dict(found or {})
    for item in items:
        if isinstance(item, Library):
            libraries.append(item)
        elif isinstance(item, Mapping):
            functions.update(item)
        else:
            raise OptionError(
                "E0854",
                f"{item!r} is no library",
                help="pass libraries=[...] of treadle.libraries.Library, or functions by name",
            )
    names = [x.name for x in libraries]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise OptionError(
            "E0852",
            f"there are two libraries of the name '{twice}'",
            help="give one of them another name",
        )
    opened: dict[str, NativeFunction] = {}
    for library in libraries:
        symbols = {library.full_name(f): f.prototype.name for f in library.lowerings if f.prototype}
        path = None if library.path is None else fspath(library.path)
        opened.update(native_functions(library.name, path, symbols))
    return GivenLibraries(tuple(libraries), functions, opened)


def called(graph: Module) -> dict[str, str | None]:
    """The functions outside that a module calls, beside the place of the first call."""
    found: dict[str, str | None] = {}
    for f in graph.graph_functions:
        for b in f.body:
            if isinstance(b.op, CallLibrary):
                found.setdefault(b.op.function, None if b.span is None else str(b.span))
    return found


def saved_choices(graph: Module) -> tuple[LibraryChoice, ...]:
    """The calls of libraries in a program that was saved with them."""
    return tuple(
        LibraryChoice(
            b.outputs[0].name,
            None if b.span is None else str(b.span),
            (),
            b.op.function,
            "saved in the artifact",
        )
        for f in graph.graph_functions
        for b in f.body
        if isinstance(b.op, CallLibrary) and "." in b.op.function
    )
