"""ONNX's backend interface: ``prepare`` a model, ``run`` it on arrays; the doors of ONNX's own
tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TypeProto, helper
from onnx.backend.base import Backend, BackendRep

from treadle.base.errors import ModelImportError
from treadle.driver import Executable
from treadle.driver import compile as compile_module
from treadle.frontend.onnx import Imported, NeedsValue, import_module
from treadle.ir.interpret import run as interpret

Arrays = tuple[np.ndarray, ...]
Runner = Callable[..., Arrays]
Engine = Callable[[Imported], Runner]


def compiled(imported: Imported) -> Runner:
    """Machine code for an imported model."""
    return runner(compile_module(imported.module, libraries=imported.libraries, threads=1))


def runner(executable: Executable) -> Runner:
    """A function that always gives a tuple."""

    def run(*arrays: np.ndarray) -> Arrays:
        results = executable(*arrays)
        return tuple(results) if isinstance(results, tuple | list) else (results,)

    return run


def interpreted(imported: Imported) -> Runner:
    """The interpreter in place of machine code: slow, and the meaning of the program."""
    return lambda *arrays: interpret(imported.module, "main", *arrays, libraries=imported.libraries)


@dataclass(eq=False)
class TreadleRep(BackendRep):
    """A prepared model.

    Where shapes depend on what some inputs hold, the model is compiled when it runs, once for each
    of their values.
    """

    model: ModelProto
    engine: Engine = compiled
    _needed: tuple[str, ...] = ()
    _runners: dict[tuple[bytes, ...], "_Named"] = field(
        default_factory=dict[tuple[bytes, ...], "_Named"]
    )

    def __post_init__(self) -> None:
        initialized = {t.name for t in self.model.graph.initializer}
        self._names = [i.name for i in self.model.graph.input if i.name not in initialized]
        try:
            self._runner({})
        except NeedsValue as error:
            self._needed = error.inputs

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run the model on arrays in the order of its inputs (or by their names), and return its
        outputs in order.

        Raises:
            TreadleError: what the importer, the compiler or the executable say.
        """
        values = self._values(inputs)
        while True:
            try:
                given = {name: values[name] for name in self._needed}
                rest = [value for name, value in values.items() if name not in given]
                return self._results(self._runner(given)(*rest))
            except NeedsValue as error:
                if set(error.inputs) <= set(self._needed):
                    raise
                self._needed = tuple(sorted({*self._needed, *error.inputs}))

    def _values(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, dict):
            return {name: _value(inputs[name]) for name in self._names}
        listed = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        return {name: _value(a) for name, a in zip(self._names, listed, strict=True)}

    def _results(self, found: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
        """The outputs as the model declares them: sequences as lists."""
        results: list[Any] = []
        for output in self.model.graph.output:
            numbered = (f"{output.name}.{k}" for k in count())
            parts = [found[name] for name in takewhile(lambda name: name in found, numbered)]
            may_be_absent = output.type.HasField("optional_type")
            is_list = output.type.HasField("sequence_type") or (may_be_absent and parts)
            results.append(parts if is_list else found.get(output.name))
        return tuple(results)

    def _runner(self, values: dict[str, Any]) -> "_Named":
        key = tuple(_key(v) for v in values.values())
        found = self._runners.get(key)
        if found is None:
            imported = import_module(self.model, constants=values)
            names = imported.module.graph("main").output_names
            found = self._runners[key] = _named(names, self.engine(imported))
        return found


_Named = Callable[..., Mapping[str, np.ndarray]]


def _named(names: Sequence[str], run: Runner) -> _Named:
    return lambda *arrays: dict(zip(names, run(*arrays), strict=True))


def _value(value: Any) -> Any:
    """An input as the importer takes it: an array, a list of arrays, or nothing."""
    if value is None or isinstance(value, list):
        return value
    return np.asarray(value)


def _key(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    return repr(None if value is None else [_key(np.asarray(v)) for v in value]).encode()


class TreadleBackend(Backend):
    """Treadle as a backend of ONNX."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be imported."""
        try:
            import_module(model)
        except NeedsValue:
            return cls.supports_device(device)
        except ModelImportError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> TreadleRep:
        """Import and compile a model. ``engine=interpreted`` runs it in the interpreter.

        Raises:
            TreadleError: what the importer and the compiler say; E0614 for another device than the
                CPU.
        """
        if not cls.supports_device(device):
            raise ModelImportError("E0614", f"there is no device '{device}'", help="use CPU")
        return TreadleRep(model, kwargs.get("engine", compiled))

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one operator on arrays, in the newest opset or ``opset_version``."""
        version = kwargs.pop("opset_version", onnx.defs.onnx_opset_version())
        arrays = [np.asarray(a) for a in inputs]
        names = [name for name in node.input if name]
        parameters = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in zip(names, arrays, strict=True)
        ]
        results = [helper.make_value_info(name, TypeProto()) for name in node.output if name]
        graph = helper.make_graph([node], node.op_type, parameters, results)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.prepare(model, device, **kwargs).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU."""
        return device.partition(":")[0] == "CPU"


is_compatible = TreadleBackend.is_compatible
prepare = TreadleBackend.prepare
run_model = TreadleBackend.run_model
run_node = TreadleBackend.run_node
supports_device = TreadleBackend.supports_device
