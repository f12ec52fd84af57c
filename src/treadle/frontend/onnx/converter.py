"""Converters: how a node of ONNX becomes operations of the program.

``@converter("Softmax", since=13)`` makes a value of a function; nothing is registered. The
function's positional parameters are the node's inputs, and their annotations say what it needs of
each: ``Traced`` a value of the program, ``Known`` what the input holds when the model is imported,
``Operand`` either. One that may be ``None`` may be missing, and ``*args`` takes any number. The
keyword-only parameters are the attributes, by ONNX's names. A first parameter of type ``Site`` gets
the place where the node is converted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from treadle.base.errors import InternalError, ModelImportError
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Known, Operand
from treadle.ir.graph_builder import Traced

Result = Traced | Operand | Known | None
Results = Result | Sequence[Result]
Attributes = Mapping[str, Any]
DOMAIN = "ai.onnx"


@dataclass(frozen=True)
class _Input:
    name: str
    kind: type
    optional: bool


@dataclass(frozen=True)
class Converter:
    """Converts nodes of one operator, from version ``since`` of its domain on.

    The known inputs in ``sizes`` may also be integers that the program computes: they are known as
    symbols then.
    """

    operator: str
    since: int
    function: Callable[..., Results]
    domain: str = DOMAIN
    sizes: tuple[str, ...] = ()

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self.function)

    @cached_property
    def _parameters(self) -> tuple[Parameter, ...]:
        return tuple(signature(self.function).parameters.values())

    @cached_property
    def takes_site(self) -> bool:
        """Whether the function asks for the place of the node."""
        return bool(self._parameters) and self._hints.get(self._parameters[0].name) is Site

    @cached_property
    def inputs(self) -> tuple[_Input, ...]:
        """The inputs, in order; a variadic one is last."""
        kinds = (
            Parameter.POSITIONAL_OR_KEYWORD,
            Parameter.POSITIONAL_ONLY,
            Parameter.VAR_POSITIONAL,
        )
        declared = [p for p in self._parameters if p.kind in kinds][int(self.takes_site) :]
        return tuple(_Input(p.name, self._kind(p), self._is_optional(p)) for p in declared)

    @cached_property
    def is_variadic(self) -> bool:
        """Whether the last input stands for any number."""
        return any(p.kind is Parameter.VAR_POSITIONAL for p in self._parameters)

    @cached_property
    def attributes(self) -> dict[str, Parameter]:
        """The attributes by name."""
        return {p.name: p for p in self._parameters if p.kind is Parameter.KEYWORD_ONLY}

    def _kind(self, parameter: Parameter) -> type:
        hint = self._hints[parameter.name]
        for kind in (Traced, Known, Operand):
            if hint is kind or kind in get_args(hint):
                return kind
        raise InternalError(f"converter of {self.operator}: '{parameter.name}' is no input")

    def _is_optional(self, parameter: Parameter) -> bool:
        return NoneType in get_args(self._hints[parameter.name])

    def __call__(
        self, site: Site, operands: Sequence[Operand | None], attributes: Attributes
    ) -> tuple[Operand | None, ...]:
        """Convert a node.

        Raises:
            ModelImportError: E0605 for inputs or attributes that the operator does not have, or
                that are missing; E0602, E0603 for inputs that must be known.
            TypeMismatch: what the operations say of their operands.
        """
        args = self._arguments(site, operands)
        given = self._attributes(site, attributes)
        results = self.function(*([site] if self.takes_site else []), *args, **given)
        listed = results if isinstance(results, Sequence) else (results,)
        sources = frozenset[str]().union(*(o.sources for o in operands if o is not None))
        return tuple(_as_operand(r, sources) for r in listed)

    def _arguments(self, site: Site, operands: Sequence[Operand | None]) -> list[Any]:
        declared = list(self.inputs)
        if self.is_variadic:
            declared += [declared[-1]] * (len(operands) - len(declared))
            declared = declared[: max(len(operands), len(self.inputs) - 1)]
        if len(operands) > len(declared):
            raise self._wrong(site, f"{len(operands)} inputs are given, and it has {len(declared)}")
        padded = [*operands, *[None] * (len(declared) - len(operands))]
        return [self._argument(site, d, o) for d, o in zip(declared, padded, strict=True)]

    def _argument(
        self, site: Site, declared: _Input, operand: Operand | None
    ) -> Traced | Known | Operand | None:
        if operand is None:
            if declared.optional:
                return None
            raise self._wrong(site, f"the input '{declared.name}' is missing")
        if declared.kind is Known:
            if declared.name in self.sizes:
                return site.sizes(operand, f"'{declared.name}' of {self.operator}")
            return site.known(operand, f"'{declared.name}' of {self.operator}")
        return site.traced(operand) if declared.kind is Traced else operand

    def _attributes(self, site: Site, attributes: Attributes) -> dict[str, Any]:
        for name, value in attributes.items():
            if name not in self.attributes:
                raise self._wrong(site, f"the attribute '{name}' is not known")
            if not _is_of(value, self._hints[name]):
                raise self._wrong(site, f"the attribute '{name}' has another type")
        for name, parameter in self.attributes.items():
            if name not in attributes and parameter.default is Parameter.empty:
                raise self._wrong(site, f"the attribute '{name}' is missing")
        return dict(attributes)

    def _wrong(self, site: Site, message: str) -> ModelImportError:
        return ModelImportError(
            "E0605",
            f"{self.operator}: {message}",
            place=site.place,
            help="check the model with onnx.checker.check_model",
        )


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value is of a declared type: a class, a tuple of one class, or a union of those.

    In a damaged file an attribute may have any type, or none.
    """
    if hint is Any:
        return True
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(v, get_args(hint)[0]) for v in value)
    if isinstance(hint, UnionType):
        return value is not None and any(_is_of(value, part) for part in get_args(hint))
    return isinstance(value, hint)


def _as_operand(result: Result, sources: frozenset[str]) -> Operand | None:
    if result is None:
        return None
    if isinstance(result, Traced):
        return Operand(result, sources=sources)
    return Operand(known=result) if isinstance(result, Known) else result


def converter(
    operator: str, *, since: int = 1, domain: str = DOMAIN, sizes: tuple[str, ...] = ()
) -> Callable[[Callable[..., Results]], Converter]:
    """Make a converter of a function; see the module."""
    return lambda function: Converter(operator, since, function, domain, sizes)


@dataclass(frozen=True)
class Catalogue:
    """Converters, found by domain, operator and version."""

    converters: tuple[Converter, ...]

    @cached_property
    def _by_operator(self) -> dict[tuple[str, str], list[Converter]]:
        found: dict[tuple[str, str], list[Converter]] = {}
        for c in sorted(self.converters, key=lambda c: c.since):
            found.setdefault((c.domain, c.operator), []).append(c)
        return found

    def find(self, domain: str, operator: str, version: int) -> Converter | None:
        """The newest converter that is not newer than ``version``."""
        fitting = [
            c for c in self._by_operator.get((domain or DOMAIN, operator), ()) if c.since <= version
        ]
        return fitting[-1] if fitting else None


def collect(*families: Iterable[Converter]) -> Catalogue:
    """The catalogue of several families of converters."""
    return Catalogue(tuple(c for family in families for c in family))
