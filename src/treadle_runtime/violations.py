"""Messages for calls whose shapes do not fit: input, axis, expected, given, the cure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treadle_runtime.dims import evaluate
from treadle_runtime.errors import RuntimeFault
from treadle_runtime.manifest import Check, Entry, TensorSpec


def explain_rank(spec: TensorSpec, shape: Sequence[int]) -> RuntimeFault:
    """The error E0704 for an input whose number of dimensions is wrong."""
    return RuntimeFault(
        "E0704",
        f"input '{spec.name}': expected {len(spec.dims)} dimensions, got {len(shape)}",
        notes=(_given(spec, shape),),
        help=f"reshape '{spec.name}' to {_dims(spec)}",
    )


def explain_dims(entry: Entry, dims: Sequence[int], status: int) -> RuntimeFault:
    """The error E0705 or E0706 for what ``E.shapes`` answered about ``dims`` of all inputs."""
    shapes = _split(entry, dims)
    values, sources = _solved(entry, shapes)
    if not 1 <= status <= len(entry.checks):
        return RuntimeFault("E0706", f"'{entry.name}' refuses these shapes", notes=sources)
    check = entry.checks[status - 1]
    if not _is_about_an_axis(entry, check):
        return RuntimeFault(
            "E0706",
            f"the inputs of '{entry.name}' break the constraint {check.text}",
            notes=sources,
            help="pass inputs that meet it, or compile with wider dimensions",
        )
    assert check.input is not None
    assert check.axis is not None
    spec, shape = entry.inputs[check.input], shapes[check.input]
    expected, given = spec.dims[check.axis], shape[check.axis]
    where = f"input '{spec.name}', axis {check.axis}"
    cure = f"pass '{spec.name}' of shape {_dims(spec)}"
    if isinstance(expected, int):
        return RuntimeFault(
            "E0705",
            f"{where}: expected {expected}, got {given}",
            notes=(_given(spec, shape),),
            help=f"{cure}, or compile with a symbolic axis",
        )
    if _value(expected, values) in (None, given):
        # The axis agrees with its own expression, so the claim itself is what fails.
        message = f"{where}: {given} breaks the constraint {check.text}"
    else:
        message = f"{where}: expected {expected} = {_value(expected, values)}, got {given}"
    return RuntimeFault("E0706", message, notes=(_given(spec, shape), *sources), help=cure)


def _split(entry: Entry, dims: Sequence[int]) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    start = 0
    for spec in entry.inputs:
        shapes.append(tuple(dims[start : start + len(spec.dims)]))
        start += len(spec.dims)
    return shapes


def _solved(
    entry: Entry, shapes: Sequence[tuple[int, ...]]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Symbols that stand alone on an axis: their values, and where each was first seen."""
    values: dict[str, int] = {}
    sources: list[str] = []
    for spec, shape in zip(entry.inputs, shapes, strict=True):
        for axis, (dim, extent) in enumerate(zip(spec.dims, shape, strict=True)):
            if dim in entry.symbols and dim not in values:
                values[str(dim)] = extent
                sources.append(f"{dim} = {extent}, from input '{spec.name}', axis {axis}")
    return values, tuple(sources)


def _is_about_an_axis(entry: Entry, check: Check) -> bool:
    if check.input is None or check.axis is None or check.input >= len(entry.inputs):
        return False
    return check.axis < len(entry.inputs[check.input].dims)


def _value(dim: str, values: Mapping[str, int]) -> int | None:
    try:
        return evaluate(dim, values)
    except RuntimeFault:  # a symbol that stands alone nowhere
        return None


def _given(spec: TensorSpec, shape: Sequence[int]) -> str:
    return f"'{spec.name}' is {spec}, and the shape given is {tuple(shape)}"


def _dims(spec: TensorSpec) -> str:
    inner = ", ".join(map(str, spec.dims))
    return f"({inner},)" if len(spec.dims) == 1 else f"({inner})"
