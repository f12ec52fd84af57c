"""Give every tensor function of a module its schedule, and constants the layouts that the schedules
ask for.
"""

import json
from dataclasses import dataclass

from treadle.base.cache import NO_CACHE, DiskCache
from treadle.base.errors import InternalError
from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import int_value
from treadle.ir.calls import CallTensor
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction
from treadle.ir.module import Constant, Function, Module
from treadle.ir.parser import parse_function
from treadle.ir.tensor import Buffer, TensorFunction
from treadle.ir.types import tensor
from treadle.schedule.layout import TransformLayout
from treadle.schedule.trace import Trace, parse_trace, trace_text
from treadle.target import Target
from treadle.tune.versions import layouts_of, versioned_schedule
from treadle_runtime.array import Slab


def apply_schedules(
    module: Module,
    *,
    target: Target,
    threads: int,
    cache: DiskCache = NO_CACHE,
    strict: bool = False,
) -> Module:
    """Schedule the tensor functions of ``module`` for ``target``; packed constants replace the
    plain ones.

    With ``strict``, floating-point sums keep their order. Schedules that ``cache`` holds are not
    worked out again.
    """
    free = constant_parameters(module)
    scheduler = _Scheduler(target, threads, cache, strict)
    schedules = {
        f.name: scheduler.run(f, frozenset(f.buffers[i] for i in free[f.name]))
        for f in module.tensor_functions
        if f.name in free
    }
    packing = _Packing(module, schedules)
    functions: list[Function] = []
    for f in module.functions.values():
        if isinstance(f, GraphFunction):
            functions.append(replace_fields(f, body=tuple(packing.call(b) for b in f.body)))
        else:
            functions.append(schedules[f.name].function if f.name in schedules else f)
    return Module({f.name: f for f in functions}, {**module.constants, **packing.packed})


@dataclass(frozen=True, slots=True)
class _Scheduled:
    """A scheduled function, and the instructions that changed the layout of buffers."""

    function: TensorFunction
    layouts: Trace


@dataclass(frozen=True, slots=True)
class _Scheduler:
    """What schedules depend on beside the function."""

    target: Target
    threads: int
    cache: DiskCache
    strict: bool

    def run(self, function: TensorFunction, constants: frozenset[Buffer]) -> _Scheduled:
        """The schedule of a function, from the cache if that has it."""
        names = " ".join(sorted(b.name for b in constants))
        order = "strict" if self.strict else "free"
        key = self.cache.key(
            "schedule", str(function), names, str(self.threads), order, *self.target.key
        )
        known = self.cache.get(key)
        if known is not None:
            text = json.loads(known)
            found = parse_function(text["function"])
            if isinstance(found, TensorFunction):
                return _Scheduled(
                    replace_fields(found, span=function.span), parse_trace(text["layouts"])
                )
        schedule = versioned_schedule(
            function, self.target, self.threads, constants, strict=self.strict
        )
        layouts = layouts_of(schedule.trace)
        text = {"function": str(schedule.function), "layouts": trace_text(layouts)}
        self.cache.put(key, json.dumps(text).encode())
        return _Scheduled(schedule.function, layouts)


def constant_parameters(module: Module) -> dict[str, frozenset[int]]:
    """For each function that is called: the operands that are constants in every call."""
    found: dict[str, frozenset[int]] = {}
    for f in module.graph_functions:
        for b in f.body:
            if isinstance(b.op, CallTensor):
                here = frozenset(i for i, a in enumerate(b.args) if isinstance(a, ConstantRef))
                found[b.op.function] = found.get(b.op.function, here) & here
    return found


class _Packing:
    """Rewrites the calls of functions whose parameters changed layout."""

    def __init__(self, module: Module, schedules: dict[str, _Scheduled]) -> None:
        self.module = module
        self.schedules = schedules
        self.packed: dict[str, Constant] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.memory = Slab(sum(c.array.nbytes for c in module.constants.values()))

    def call(self, binding: Binding) -> Binding:
        op = binding.op
        schedule = self.schedules.get(op.function) if isinstance(op, CallTensor) else None
        if schedule is None or not isinstance(op, CallTensor):
            return binding
        plain = self.module.tensor(op.function)
        args = list(binding.args)
        for position, buffer in enumerate(plain.input_buffers):
            layouts = tuple(
                i
                for i in schedule.layouts
                if isinstance(i, TransformLayout) and i.buffer == buffer.name
            )
            if layouts:
                args[position] = self.pack(args[position], layouts, plain)
        return replace_fields(binding, args=tuple(args))

    def pack(self, atom: Atom, layouts: tuple[TransformLayout, ...], plain: TensorFunction) -> Atom:
        """The constant in another layout; equal layouts of one constant are packed once."""
        if not isinstance(atom, ConstantRef):
            raise InternalError(
                f"an operand of {plain.name} that is no constant has a layout of its own"
            )
        key = (atom.name, str(layouts))
        if key not in self.names:
            array, function = self.module.constants[atom.name].array, plain
            for number, layout in enumerate(layouts):
                function = layouts[number - 1].apply(function) if number else function
                shape = map(int_value, layout.new_shape(function))
                array = layout.pack(array, tuple(d for d in shape if d is not None))
            name = self.names[key] = f"{atom.name}__packed{len(self.names)}"
            type_ = tensor(list(array.shape), self.module.constants[atom.name].type.dtype)
            self.packed[name] = Constant(type_, self.memory.copy(array))
        name = self.names[key]
        return ConstantRef(name, self.packed[name].type)
