"""Partial lowering to libraries: parts of a graph that a library's pattern fits become calls of its
functions; the rest goes the usual way.

A part is replaced as a whole or not at all: nothing else may need what is computed inside. Results
come first, so a pattern of several operations is tried before those of the operations in it. A time
that was measured decides; where there is none the priority that the library declares does.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Var
from treadle.ir.analysis import facts_of, symbols
from treadle.ir.calls import CallLibrary
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Value
from treadle.ir.module import Module
from treadle.ir.types import TensorType
from treadle.libraries.library import Library, Lowering
from treadle.libraries.match import Match, Matcher, fit_shape
from treadle.libraries.measurements import GENERATED, MeasurementKey, Measurements
from treadle.passes.specialize_calls import substituted

LOG = logging.getLogger("treadle.passes")


@dataclass(frozen=True, slots=True)
class LibraryChoice:
    """What computes a part of the program that a library could, and why.

    ``name`` is the part's result in the graph and ``place`` where the model says it. ``chosen`` is
    ``library.function`` or ``generated``. ``keys`` are what could have been measured: generated
    code first.
    """

    name: str
    place: str | None
    operations: tuple[str, ...]
    chosen: str
    reason: str
    keys: tuple[MeasurementKey, ...] = ()

    def __str__(self) -> str:
        where = "" if self.place is None else f" ({self.place})"
        what = f"{' + '.join(self.operations)} by " if self.operations else ""
        return f"{self.name}{where}: {what}{self.chosen}: {self.reason}"


def lower_libraries(
    module: Module,
    *,
    libraries: Sequence[Library] = (),
    measurements: Measurements | None = None,
    machine: str = "",
    threads: int = 1,
    strict: bool = False,
    report: Callable[[LibraryChoice], None] | None = None,
) -> Module:
    """Call functions of ``libraries`` where their patterns fit.

    ``measurements`` holds for ``machine`` and ``threads``. With ``strict``, only functions that are
    declared exact are called. Each choice is logged, and handed to ``report``.
    """
    if not libraries:
        return module
    chooser = _Chooser(measurements, machine, threads, strict)

    def lower(function: GraphFunction) -> GraphFunction:
        lowering = _Lower(module, function, libraries, chooser)
        changed = lowering.run()
        for choice in lowering.choices:
            LOG.info("%s", choice)
            if report is not None:
                report(choice)
        return changed

    return module.map_graph_functions(lower)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A function that could compute a part."""

    name: str
    lowering: Lowering
    match: Match
    root: Binding
    part: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether a candidate is used, how good it is among those that are, and why."""

    candidate: _Candidate
    keys: tuple[MeasurementKey, MeasurementKey]
    used: bool
    rank: tuple[float, int, int]
    reason: str


@dataclass(frozen=True, slots=True)
class _Chooser:
    """Decides between a library and generated code."""

    measurements: Measurements | None
    machine: str
    threads: int
    strict: bool

    def verdict(self, c: _Candidate) -> _Verdict:
        """Judge one candidate."""
        text = str(standalone(c.part))
        own, library = (
            MeasurementKey(text, x, self.machine, self.threads) for x in (GENERATED, c.name)
        )
        priority, size = c.lowering.priority, len(c.part)
        if self.strict and not c.lowering.exact:
            reason = f"{c.name} may change sums, and numerics is strict"
            return _Verdict(c, (own, library), False, (0.0, priority, size), reason)
        times = self.measurements
        before, after = (None if times is None else times.seconds(k) for k in (own, library))
        if before is not None and after is not None:
            used = after < before
            reason = f"measured {_time(after if used else before)}, {_other(c, used)} "
            reason += _time(before if used else after)
            return _Verdict(c, (own, library), used, (before - after, priority, size), reason)
        used = priority > 0
        reason = f"priority {priority}" if used else f"{c.name} has priority {priority}"
        return _Verdict(c, (own, library), used, (0.0, priority, size), f"{reason}, not measured")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def _other(c: _Candidate, used: bool) -> str:
    return "generated code" if used else c.name


@dataclass(slots=True)
class _Lower:
    """One graph function."""

    module: Module
    function: GraphFunction
    libraries: Sequence[Library]
    chooser: _Chooser
    choices: list[LibraryChoice] = field(default_factory=list[LibraryChoice])

    def run(self) -> GraphFunction:
        """The function with calls; ``choices`` has what was decided, in the order of the text."""
        matcher = Matcher(self.function, self.module.constants, facts_of(self.function))
        replaced: dict[Binding, Binding] = {}
        gone: set[Binding] = set()
        for root in reversed(self.function.body):
            if root in gone:
                continue
            verdicts = [self.chooser.verdict(c) for c in self.candidates(matcher, root)]
            best = max((v for v in verdicts if v.used), key=lambda v: v.rank, default=None)
            if verdicts:
                self.note(root, verdicts, best)
            if best is not None:
                replaced[root] = _call(best.candidate)
                gone.update(best.candidate.part)
        self.choices.reverse()
        if not replaced:
            return self.function
        body = tuple(
            replaced.get(b, b) for b in self.function.body if b in replaced or b not in gone
        )
        return replace_fields(self.function, body=body)

    def candidates(self, matcher: Matcher, root: Binding) -> Iterator[_Candidate]:
        """The functions whose patterns end in ``root``."""
        for library in self.libraries:
            for lowering in library.lowerings:
                match = matcher.match(lowering.pattern, root)
                if match is None or not _gives(lowering, match, matcher):
                    continue
                inside = set(match.bindings.values())
                part = tuple(b for b in self.function.body if b in inside)
                yield _Candidate(library.full_name(lowering), lowering, match, root, part)

    def note(self, root: Binding, verdicts: list[_Verdict], best: _Verdict | None) -> None:
        """Remember what was chosen."""
        shown = best or max(verdicts, key=lambda v: v.rank)
        self.choices.append(
            LibraryChoice(
                root.outputs[0].name,
                None if root.span is None else str(root.span),
                tuple(b.op.op_name() for b in shown.candidate.part),
                GENERATED if best is None else best.candidate.name,
                shown.reason,
                tuple(dict.fromkeys(k for v in (shown, *verdicts) for k in v.keys)),
            )
        )


def _gives(lowering: Lowering, match: Match, matcher: Matcher) -> bool:
    """Whether the declared result is that of the part."""
    type_ = match.type(lowering.pattern)
    declared = lowering.result
    if type_.shape is None or declared.dtype not in (None, type_.dtype):
        return False
    fits = fit_shape(declared.shape or type_.shape, type_, match.sizes, matcher.facts)
    return declared.shape is None or fits is not None


def _call(c: _Candidate) -> Binding:
    """The call that takes the place of a part."""
    out = tuple(v.type for v in c.root.outputs if isinstance(v.type, TensorType))
    args = tuple(c.match.atoms[p] for p in c.lowering.inputs)
    return replace_fields(
        c.root, op=CallLibrary(c.name, out, c.lowering.symbols(c.match)), args=args
    )


def standalone(part: Sequence[Binding]) -> GraphFunction:
    """A program of its own that computes a part: operands and constants are its parameters. Equal
    parts of different programs have equal text.
    """
    known: dict[object, Value] = {}
    params: list[Value] = []
    body: list[Binding] = []

    def operand(a: Atom) -> Atom:
        if not isinstance(a, Value | ConstantRef):
            return a
        key = a.name if isinstance(a, ConstantRef) else a
        if key not in known:
            known[key] = Value(f"a{len(params)}", a.type)
            params.append(known[key])
        return known[key]

    for b in part:
        args = tuple(operand(a) for a in b.args)
        outputs = tuple(Value(f"v{len(body)}_{i}", v.type) for i, v in enumerate(b.outputs))
        known.update(zip(b.outputs, outputs, strict=True))
        body.append(Binding(outputs, b.op, args))
    results = tuple(body[-1].outputs)
    function = GraphFunction("main", tuple(params), tuple(body), results)
    renamed = {s: Var(f"s{i}") for i, s in enumerate(symbols(function))}
    return substituted(function, renamed)
