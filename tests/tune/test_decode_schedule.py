"""Products decode packed weights where they use them, and keep their values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.rewrite import replace_fields
from treadle.codegen.llvm.kernel import kernel_text, module_text
from treadle.codegen.llvm.object import assembly
from treadle.expr.dtype import bf16, f32
from treadle.expr.scalar import Var, cast
from treadle.ir.analysis import blocks, statements
from treadle.ir.calls import CallTensor
from treadle.ir.graph_builder import GraphBuilder
from treadle.ir.interpret import run_tensor
from treadle.ir.loop_builder import LoopBuilder
from treadle.ir.module import Module
from treadle.ir.tensor import Allocate, Buffer, TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.language.decoding import decoded
from treadle.language.quantize import KINDS, Kind, quantized
from treadle.ops import Matmul, Relu
from treadle.passes.fuse import fuse
from treadle.passes.legalize import legalize
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.layout import TransformLayout
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.decode_schedule import Digit, decoding_of, schedule_decoded
from treadle.tune.default import default_schedule

WIDE = Target.parse("x86-64-v4")
TARGETS = (WIDE, Target.parse("x86-64-v3"))
Rows = int | Var
T = Var("t")


def product(kind: Kind, rows: Rows, inputs: int, outputs: int) -> tuple[TensorFunction, Module]:
    """relu(x @ decoded weight), fused, and the module with its constants."""
    rng = np.random.default_rng(inputs * 1000 + outputs)
    weight = quantized(rng.standard_normal((outputs, inputs), np.float32), kind)
    b = GraphBuilder("main")
    y = Relu()(Matmul()(b.input("x", tensor([rows, inputs], f32)), decoded(b, weight)))
    module = fuse(legalize(Module({**b.functions, "main": b.finish(y)}, b.constants)))
    (binding,) = module.graph("main").body
    assert isinstance(binding.op, CallTensor)
    return module.tensor(binding.op.function), module


def constants_of(function: TensorFunction) -> frozenset[Buffer]:
    return frozenset(function.input_buffers[:-1])


def scheduled(function: TensorFunction, target: Target = WIDE, threads: int = 1) -> Schedule:
    s = Schedule(function)
    name = next(b.name for b in blocks(function) if any(a.kind == "reduce" for a in b.iters))
    assert schedule_decoded(s, name, target, threads, constants_of(function))
    verify_tensor_function(s.function)
    return s


def packed(s: Schedule, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The constants as the schedule wants them."""
    result = list(arrays)
    for number, buffer in enumerate(s.function.input_buffers[:-1]):
        shape = tuple(int(str(d)) for d in buffer.shape)
        for i in s.trace:
            if isinstance(i, TransformLayout) and i.buffer == buffer.name:
                result[number] = i.layout.pack(result[number], shape)
    return result


def check(s: Schedule, plain: TensorFunction, module: Module, rows: int) -> None:
    *parts, x_buffer = plain.input_buffers
    names = [f"weight_{p}" for p in ("codes", "scales", "offsets")][: len(parts)]
    before = [module.constants[n].array for n in names]
    inputs, outputs = int(str(x_buffer.shape[1])), int(str(plain.output_buffers[0].shape[1]))
    x = np.random.default_rng(rows).standard_normal((rows, inputs), np.float32)
    (expected,) = run_tensor(plain, [*before, x], out_shapes=[(rows, outputs)])
    for after in (s.function, lower_loops(s.function)):
        (found,) = run_tensor(after, [*packed(s, before), x], out_shapes=[(rows, outputs)])
        scale = np.abs(expected).max(initial=1)
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)


@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
@given(
    rows=st.sampled_from([1, 2, 5, 13, 30]),
    inputs=st.sampled_from([7, 31, 32, 33, 64, 97]),
    outputs=st.sampled_from([5, 16, 17, 64, 67, 130]),
    target=st.sampled_from(TARGETS),
    threads=st.sampled_from([1, 2]),
)
def test_products_keep_their_values(
    kind: Kind, rows: int, inputs: int, outputs: int, target: Target, threads: int
):
    function, module = product(kind, rows, inputs, outputs)
    check(scheduled(function, target, threads), function, module, rows)


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_any_number_of_rows_keeps_its_values(kind: Kind, rows: int):
    function, module = product(kind, T, 64, 70)
    check(scheduled(function), function, module, rows)


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_few_rows_of_an_unknown_number_are_decoded_into_registers(rows: int):
    function, module = product("int4", T, 64, 70)
    function = replace_fields(function, assumes=(T <= 8,))
    s = scheduled(function)
    assert not memory(s.function)
    check(s, function, module, rows)


def memory(function: TensorFunction) -> list[str]:
    found = (x.buffer for x in statements(function.body) if isinstance(x, Allocate))
    return [b.name for b in found if b.scope != "register"]


@pytest.mark.parametrize(("rows", "in_memory"), [(1, False), (12, False), (64, True), (T, True)])
def test_many_rows_are_decoded_into_memory_a_panel_at_a_time(rows: Rows, in_memory: bool):
    function, _ = product("int4", rows, 64, 256)
    s = scheduled(function)
    assert bool(memory(s.function)) == in_memory


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_of_constants_does_not_depend_on_the_rows(kind: Kind):
    functions = [scheduled(product(kind, rows, 64, 70)[0]).function for rows in (1, 12, 100, T)]
    layouts = {tuple(b.shape for b in f.input_buffers[:-1]) for f in functions}
    assert len(layouts) == 1


@pytest.mark.parametrize(
    ("kind", "digits"),
    [
        ("int8", ()),
        ("int8_grouped", (Digit(32, False),)),
        ("int4", (Digit(2, True), Digit(16, False))),
        ("int4_affine", (Digit(2, True), Digit(16, False))),
    ],
)
def test_digits_of_steps_are_read_off_the_decoding(kind: Kind, digits: tuple[Digit, ...]):
    function, _ = product(kind, 1, 64, 64)
    name = blocks(function)[1].name
    found = decoding_of(function, name, constants_of(function))
    assert found is not None
    assert found.digits == digits


def test_operands_that_are_no_constants_are_not_decoded():
    function, _ = product("int4", 1, 64, 64)
    assert decoding_of(function, blocks(function)[1].name, frozenset()) is None


def test_default_schedules_decode():
    function, _ = product("int4", 1, 64, 64)
    s = default_schedule(function, WIDE, 1, constants_of(function))
    assert not memory(s.function)


def test_strict_sums_are_left_in_order():
    function, module = product("int4", 2, 64, 48)
    s = default_schedule(function, WIDE, 1, constants_of(function), strict=True)
    check(s, function, module, 2)


def test_a_users_own_decoding_is_scheduled_alike():
    """A weight of bf16, stored (outputs, inputs), that a function of the user's widens."""
    f = LoopBuilder("widen")
    source = f.input(tensor([24, 40], bf16), "S")
    f.compute(f.output((40, 24), f32, "W"), lambda k, n: cast(source[n, k], f32))
    b = GraphBuilder("main")
    stored = b.constant("weight_codes", np.arange(24 * 40).reshape(24, 40).astype(bf16.numpy))
    (w,) = b.emit_all(CallTensor("widen", (tensor([40, 24], f32),)), stored)
    y = Matmul()(b.input("x", tensor([3, 40], f32)), w)
    module = fuse(legalize(Module({"widen": f.build(), "main": b.finish(y)}, b.constants)))
    (binding,) = module.graph("main").body
    assert isinstance(binding.op, CallTensor)
    function = module.tensor(binding.op.function)
    check(scheduled(function), function, module, 3)


def test_machine_code_of_a_step_has_no_waste():
    function, _ = product("int4", 1, 768, 768)
    s = scheduled(function)
    kernel = kernel_text(lower_loops(s.function), WIDE, contract=True, aliased=frozenset())
    lines = assembly(module_text([kernel], "", WIDE), WIDE).splitlines()
    code = [line.split()[0] for line in lines if line.startswith("\t") and line[1] != "."]
    assert not [line for line in lines if "rsp" in line and "zmm" in line]
    # A load of codes gives two products; nothing else converts or shifts.
    assert code.count("vpmovzxbd") == 4
    assert code.count("vcvtdq2ps") == 8
