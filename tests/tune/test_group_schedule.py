"""Products in integers, scaled group by group, reach the machine's dot products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.rewrite import replace_fields
from treadle.codegen.llvm.kernel import kernel_text, module_text
from treadle.codegen.llvm.object import assembly
from treadle.expr.dtype import from_numpy
from treadle.expr.scalar import Var
from treadle.ir.analysis import statements
from treadle.ir.interpret import run_tensor
from treadle.ir.tensor import Allocate, TensorFunction
from treadle.ir.types import tensor
from treadle.ir.verify import verify_tensor_function
from treadle.language.integer import grouped_product, padded_parts
from treadle.language.quantize import GROUP, KINDS, Kind, quantized
from treadle.passes.lower_loops import lower_loops
from treadle.schedule.layout import TransformLayout
from treadle.schedule.trace import Schedule
from treadle.target import Target
from treadle.tune.default import default_schedule
from treadle.tune.group_schedule import grouped_of, schedule_grouped

WIDE = Target.parse("cooperlake")
TARGETS = (WIDE, Target.parse("x86-64-v4"), Target.parse("x86-64-v3"))
T = Var("t")
Made = tuple[TensorFunction, list[np.ndarray]]


def product(kind: Kind, digits: int, inputs: int, outputs: int) -> Made:
    """The function, and its constants."""
    rng = np.random.default_rng(inputs * 1000 + outputs)
    weight = quantized(rng.standard_normal((outputs, inputs), np.float32), kind)
    parts = list(padded_parts(weight).values())
    types = []
    for part in parts:
        dtype = from_numpy(part.dtype)
        assert dtype is not None
        types.append(tensor(list(part.shape), dtype))
    return grouped_product(weight, tuple(types), digits), parts


def scheduled(function: TensorFunction, target: Target = WIDE, threads: int = 1) -> Schedule:
    s = Schedule(function)
    assert schedule_grouped(s, "sums", target, threads, frozenset(function.input_buffers[3:]))
    verify_tensor_function(s.function)
    return s


def check(s: Schedule, made: Made, digits: int, rows: int) -> None:
    plain, parts = made
    groups = int(str(plain.input_buffers[0].shape[1]))
    outputs = int(str(plain.output_buffers[0].shape[1]))
    rng = np.random.default_rng(rows)
    x = rng.integers(-127, 128, (rows, groups, digits, GROUP), np.int8)
    scales = rng.random((rows, groups), np.float32)
    inputs = [x, scales, x.sum(axis=3, dtype=np.int32)]
    (expected,) = run_tensor(plain, [*inputs, *parts], out_shapes=[(rows, outputs)])
    packed = list(parts)
    for number, buffer in enumerate(s.function.input_buffers[3:]):
        shape = tuple(int(str(d)) for d in buffer.shape)
        for i in s.trace:
            if isinstance(i, TransformLayout) and i.buffer == buffer.name:
                packed[number] = i.layout.pack(packed[number], shape)
    for after in (s.function, lower_loops(s.function)):
        (found,) = run_tensor(after, [*inputs, *packed], out_shapes=[(rows, outputs)])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3 * np.abs(expected).max())


@settings(max_examples=4, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
@given(
    digits=st.sampled_from([1, 2]),
    rows=st.sampled_from([1, 2, 5, 9]),
    inputs=st.sampled_from([1, 32, 70]),
    outputs=st.sampled_from([1, 17, 64, 67]),
    target=st.sampled_from(TARGETS),
    threads=st.sampled_from([1, 2]),
)
def test_products_keep_their_values(
    kind: Kind, digits: int, rows: int, inputs: int, outputs: int, target: Target, threads: int
):
    made = product(kind, digits, inputs, outputs)
    check(scheduled(made[0], target, threads), made, digits, rows)


@pytest.mark.parametrize("digits", [1, 2])
def test_bounded_rows_keep_their_values(digits: int):
    function, parts = product("int4", digits, 64, 64)
    function = replace_fields(function, assumes=(T <= 2,))
    made = function, parts
    for rows in (1, 2):
        check(scheduled(function), made, digits, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_codes_stay_in_registers(kind: Kind):
    s = scheduled(product(kind, 1, 64, 128)[0])
    kept = [x.buffer for x in statements(s.function.body) if isinstance(x, Allocate)]
    assert {b.scope for b in kept} == {"register"}


def test_without_native_dot_products_another_schedule_is_taken():
    function, _ = product("int4", 1, 64, 64)
    plain = Target.parse("x86-64-v2")
    constants = frozenset(function.input_buffers[3:])
    assert not schedule_grouped(Schedule(function), "sums", plain, 1, constants)


def test_codes_that_are_no_constants_are_left_to_others():
    function, _ = product("int4", 1, 64, 64)
    assert grouped_of(function, "sums", frozenset()) is None
    assert grouped_of(function, "decode", frozenset(function.input_buffers[3:])) is None


def test_default_schedules_do_so():
    function, parts = product("int8", 2, 64, 64)
    s = default_schedule(function, WIDE, 1, frozenset(function.input_buffers[3:]))
    assert "dot(" in str(s.function)
    check(s, (function, parts), 2, 3)


def test_machine_code_decodes_whole_vectors():
    function, _ = product("int4", 1, 768, 768)
    function = replace_fields(function, assumes=(T <= 1,))
    kernel = kernel_text(
        lower_loops(scheduled(function).function), WIDE, contract=True, aliased=frozenset()
    )
    lines = assembly(module_text([kernel], "", WIDE), WIDE).splitlines()
    code = [line.split()[0] for line in lines if line.startswith("\t") and line[1] != "."]
    assert not [line for line in lines if "rsp" in line and "zmm" in line]
    assert code.count("vpdpbusd") == 8
    assert code.count("vpsrlw") == 4
    assert code.count("vpmovzxbd") == 0
