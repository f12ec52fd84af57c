"""Control flow: branches and loops whose bodies are graphs."""

from collections.abc import Sequence

import numpy as np
from onnx import GraphProto

from treadle.base.errors import ModelImportError
from treadle.expr.dtype import boolean, i64
from treadle.expr.scalar import int_value
from treadle.frontend.onnx.compose import axis_of, concat, insert_axis, permute, pick, reshape
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.loops import UNROLLED, check_same, is_same, repeat, scan_over
from treadle.frontend.onnx.region import Region, Site, unknown
from treadle.frontend.onnx.rules import paired, require
from treadle.frontend.onnx.value import Known, Operand
from treadle.frontend.onnx.window import Ints
from treadle.ir.calls import Cond
from treadle.ir.graph_builder import Traced
from treadle.ir.types import TensorType
from treadle.ops.shape import Flip

# The largest number of iterations that is written out where a loop cannot be one of the program.
LONGEST = 1024


def _sources(*operands: Operand | None) -> frozenset[str]:
    return frozenset[str]().union(*(o.sources for o in operands if o is not None))


@converter("If")
def branch(
    site: Site, condition: Operand, *, then_branch: GraphProto, else_branch: GraphProto
) -> list[Operand]:
    """The branch itself where the condition is known, else both as functions."""
    if condition.known is not None and condition.known.is_concrete:
        taken = then_branch if condition.known.item() else else_branch
        return site.run_graph(site.region, taken, [])
    then, orelse = site.region.nested("then_branch"), site.region.nested("else_branch")
    first = site.run_graph(then, then_branch, [])
    orelse.take_all(then)
    second = site.run_graph(orelse, else_branch, [])
    if not all(x.is_tensor for x in (*first, *second)):
        raise unknown(condition, "the length of a sequence", site.place)
    for a, b in zip(first, second, strict=True):
        if condition.sources and not is_same(a.type, b.type):
            raise unknown(condition, "the shape of what a branch gives", site.place)
        check_same(a.type, b.type, "a result of a branch")
    results = [then.traced(a) for a in first], [orelse.traced(b) for b in second]
    then.take_all(orelse)
    then.close(*results[0])
    orelse.close(*results[1])
    op = Cond(then.builder.name, orelse.builder.name, tuple(a.type for a in first))
    test = reshape(site.traced(condition))
    found = site.builder.emit_all(op, test, *site.region.operands_of(then))
    sources = _sources(condition, *first, *second)
    return [Operand(x, sources=sources) for x in found]


@converter("Loop")
def loop(
    site: Site,
    limit: Operand | None,
    condition: Operand | None,
    *carried: Operand,
    body: GraphProto,
) -> list[Operand]:
    """Written out where the number of iterations is known, else a loop of the program."""
    scans = len(body.output) - 1 - len(carried)
    found = _written_out(site, limit, condition, list(carried), body, scans)
    if found is not None:
        return found
    if not all(c.is_tensor for c in carried):
        raise _unknown_count(site, limit, condition)
    return _looped(site, limit, condition, list(carried), body, scans)


def _written_out(
    site: Site,
    limit: Operand | None,
    condition: Operand | None,
    state: list[Operand],
    body: GraphProto,
    scans: int,
) -> list[Operand] | None:
    """The results of a loop whose every condition is known; ``None`` if one is not."""
    longest = UNROLLED if scans == 0 else LONGEST
    count = None if limit is None else limit.known
    if (limit is not None and count is None) or (condition is not None and condition.known is None):
        return None
    steps = longest + 1 if count is None else count.integer()
    if count is not None and steps > longest:
        return None
    going = condition or Operand(known=Known(np.array(True), boolean))
    columns: list[list[Operand]] = [[] for _ in range(scans)]
    for i in range(steps):
        if going.known is None or i > longest:
            return None
        if not going.known.item():
            break
        index = Operand(known=Known(np.array(i, np.int64), i64))
        going, *rest = site.run_graph(site.region, body, [index, going, *state])
        state = rest[: len(state)]
        for column, y in zip(columns, rest[len(state) :], strict=True):
            column.append(y)
    if any(not column for column in columns):
        return None
    return [*state, *[_stacked(site, column) for column in columns]]


def _unknown_count(
    site: Site, limit: Operand | None, condition: Operand | None
) -> ModelImportError:
    """The error of a loop over sequences that cannot be written out."""
    for x in (limit, condition):
        if x is not None and x.known is None:
            return unknown(x, "the length of a sequence", site.place)
    return ModelImportError(
        "E0607",
        "a loop over sequences is too long, or ends where data say",
        place=site.place,
        help="give the model fixed dimensions",
    )


def _stacked(site: Site, column: Sequence[Operand]) -> Operand:
    if all(y.known is not None and y.known.is_concrete for y in column):
        arrays = [y.known.array for y in column if y.known is not None]
        return Operand(known=Known(np.stack(arrays), column[0].dtype))
    rows = [insert_axis(site.traced(y), 0) for y in column]
    return Operand(concat(rows, 0), sources=_sources(*column))


def _looped(
    site: Site,
    limit: Operand | None,
    condition: Operand | None,
    carried: list[Operand],
    body: GraphProto,
    scans: int,
) -> list[Operand]:
    if scans:
        for operand, what in ((limit, "the number of iterations"), (condition, "the condition")):
            if operand is not None and operand.known is None:
                raise unknown(operand, f"{what} of a loop that collects results", site.place)
        raise unknown(
            Operand(sources=_sources(*carried)),
            "the condition of a loop that collects results",
            site.place,
        )
    inside: list[Operand] = []

    def step(region: Region, index: Traced, current: list[Traced]) -> tuple[Traced, list[Traced]]:
        given = [Operand(t, sources=o.sources) for t, o in zip(current, carried, strict=True)]
        going = Operand(region.builder.literal(True, boolean))
        again, *following = site.run_graph(region, body, [Operand(index), going, *given])
        inside.extend([again, *following])
        return reshape(region.traced(again)), [region.traced(f) for f in following]

    final = repeat(
        site.region,
        None if limit is None else reshape(site.traced(limit)),
        None if condition is None else reshape(site.traced(condition)),
        [site.traced(c) for c in carried],
        step,
    )
    sources = _sources(limit, condition, *carried, *inside)
    return [Operand(x, sources=sources) for x in final]


def _to_front(x: Traced, axis: int) -> Traced:
    k = axis_of(axis, x.ndim)
    return permute(x, k, *[a for a in range(x.ndim) if a != k])


def _from_front(x: Traced, axis: int) -> Traced:
    k = axis_of(axis, x.ndim)
    return permute(x, *range(1, k + 1), 0, *range(k + 1, x.ndim))


# Directions and axes of the sequences, then of what is stacked.
Ways = tuple[Ints | None, Ints | None, Ints | None, Ints | None]


@converter("Scan", since=9)
def scan(
    site: Site,
    *operands: Operand,
    body: GraphProto,
    num_scan_inputs: int,
    scan_input_axes: tuple[int, ...] | None = None,
    scan_input_directions: tuple[int, ...] | None = None,
    scan_output_axes: tuple[int, ...] | None = None,
    scan_output_directions: tuple[int, ...] | None = None,
) -> list[Operand]:
    """A state carried along some sequences."""
    inward, outward = scan_input_directions, scan_output_directions
    return _scanned(
        site,
        operands,
        body,
        num_scan_inputs,
        (inward, scan_input_axes, outward, scan_output_axes),
    )


def _scanned(
    site: Site, operands: Sequence[Operand], body: GraphProto, num_scan_inputs: int, ways: Ways
) -> list[Operand]:
    scan_input_directions, scan_input_axes, scan_output_directions, scan_output_axes = ways
    count = len(operands) - num_scan_inputs
    require(0 < num_scan_inputs <= len(operands), f"Scan cannot have {num_scan_inputs} scan inputs")
    axes = scan_input_axes or (0,) * num_scan_inputs
    sequences = [
        _to_front(site.traced(o), a)
        for o, a in paired("sequences and axes", operands[count:], axes)
    ]
    backwards = scan_input_directions or (0,) * num_scan_inputs
    sequences = [Flip((0,))(x) if b else x for x, b in paired("directions", sequences, backwards)]
    states = [site.traced(o) for o in operands[:count]]
    sources = _sources(*operands)

    def step(
        region: Region, current: list[Traced], slices: list[Traced]
    ) -> tuple[list[Traced], list[Traced]]:
        given = [Operand(t, sources=sources) for t in (*current, *slices)]
        found = [region.traced(o) for o in site.run_graph(region, body, given)]
        return found[:count], found[count:]

    length = sequences[0].shape[0]
    types = _row_types(site, body, operands, sequences, count, int_value(length))
    final, rows = scan_over(site.region, length, states, sequences, step, types)
    outward = scan_output_axes or (0,) * len(rows)
    reverse = scan_output_directions or (0,) * len(rows)
    rows = [Flip((0,))(y) if b else y for y, b in paired("directions", rows, reverse)]
    results = [*final, *[_from_front(y, a) for y, a in paired("axes", rows, outward)]]
    return [Operand(x, sources=sources) for x in results]


def _row_types(
    site: Site,
    body: GraphProto,
    operands: Sequence[Operand],
    sequences: Sequence[Traced],
    states: int,
    length: int | None,
) -> list[TensorType]:
    """The types of what a step gives: found by converting the body once, for a function that is
    thrown away."""
    if length is not None and 0 < length <= UNROLLED:
        return []
    trial = site.region.nested("trial")
    types = [o.type for o in operands[:states]]
    types += [TensorType(x.shape[1:], x.ndim - 1, x.dtype) for x in sequences]
    given = [Operand(trial.builder.input("given", t)) for t in types]
    return [o.type for o in site.run_graph(trial, body, given)[states:]]


@converter("Scan", since=8)
def scan_each(
    site: Site,
    lengths: Operand | None,
    *operands: Operand,
    body: GraphProto,
    num_scan_inputs: int,
    directions: tuple[int, ...] | None = None,
) -> list[Operand]:
    """Opset 8: a scan for each element of a batch, which is axis 0 of everything."""
    require(bool(operands), "Scan has no operands")
    tensors = [site.traced(o) for o in operands]
    batch = int_value(tensors[0].shape[0]) if tensors[0].ndim else None
    if lengths is not None or not batch:
        raise ModelImportError(
            "E0601",
            "Scan of opset 8 is not supported with sequence_lens, or with a batch of unknown size",
            help="convert the model to opset 9 with onnx.version_converter",
        )
    columns: list[list[Traced]] = []
    for k in range(batch):
        given = [Operand(pick(x, 0, k), sources=_sources(*operands)) for x in tensors]
        found = _scanned(site, given, body, num_scan_inputs, (directions, None, None, None))
        columns.append([insert_axis(site.traced(o), 0) for o in found])
    results = [concat(list(rows), 0) for rows in zip(*columns, strict=True)]
    return [Operand(x, sources=_sources(*operands)) for x in results]


CONVERTERS = (branch, loop, scan, scan_each)
