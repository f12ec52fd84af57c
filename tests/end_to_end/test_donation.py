"""Inputs that give their memory to results: no copy is made, and no old value is lost."""

import numpy as np
import pytest
import torch

import treadle
from treadle.base.errors import OptionError, RuntimeFault, VerifyError
from treadle.ir.calls import CallTensor
from treadle.ir.host import ArenaSlot, CopyStep, InputSlot, KernelStep
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.verify import verify
from treadle.testing import assert_close, assert_same_ir, compiled_here, ir

CACHE = """
@graph.function(outputs=('y', 'keys', 'values'){donated})
def main(q: Tensor[(t, 4, 8), f32], k: Tensor[(t, 2, 8), f32], v: Tensor[(t, 2, 8), f32],
         keys: Tensor[(p, 2, 8, 4), f32], values: Tensor[(p, 2, 4, 8), f32],
         table: Tensor[(b, m), i64], sequences: Tensor[(t,), i64], positions: Tensor[(t,), i64],
         slots: Tensor[(t,), i64]):
    new_keys = write_pages(keys, k, slots, transposed=True)
    new_values = write_pages(values, v, slots)
    y = paged_attention(q, new_keys, new_values, table, sequences, positions)
    return y, new_keys, new_values
"""


def cache_inputs() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    shapes = ((5, 4, 8), (5, 2, 8), (5, 2, 8), (6, 2, 8, 4), (6, 2, 4, 8))
    floats = [random.normal(size=s).astype(np.float32) for s in shapes]
    table = np.array([[4, 1, 0], [3, 5, 2]])
    rows, places = np.array([0, 0, 1, 1, 1]), np.array([4, 5, 9, 10, 11])
    slots = table[rows, places // 4] * 4 + places % 4
    return [*floats, table, rows, places, slots]


def steps_of(exe: treadle.Executable, kind: type) -> list:
    return [s for s in exe.build.host.steps if isinstance(s, kind)]


def interpreted(module: Module, arrays: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    return run(module, "main", *(a.copy() for a in arrays))


def test_a_donated_cache_is_updated_in_place_without_a_copy():
    module = ir(CACHE.format(donated=", donated=((1, 3), (2, 4))"))
    exe, arrays = compiled_here(module), cache_inputs()
    expected = interpreted(module, arrays)
    found = exe(*arrays)
    assert found[1] is arrays[3]
    assert found[2] is arrays[4]
    assert_close(found, expected)
    assert not steps_of(exe, CopyStep)
    places = {b for s in steps_of(exe, KernelStep) for b in s.buffers if isinstance(b, ArenaSlot)}
    assert exe.memory().arena <= 64 * len(places)


def test_a_bound_cache_is_checked_once_and_updated_by_every_call():
    module = ir(CACHE.format(donated=", donated=((1, 3), (2, 4))"))
    exe, arrays = compiled_here(module), cache_inputs()
    step = exe.bind(keys=arrays[3], values=arrays[4])
    rest = [*arrays[:3], *arrays[5:]]
    for _ in range(2):
        expected = interpreted(module, arrays)
        found = step(*rest)
        assert found[1] is arrays[3]
        assert found[2] is arrays[4]
        assert_close(found, expected)
    with pytest.raises(RuntimeFault, match="E0704: input 'q'"):
        step(arrays[0][0], *rest[1:])
    with pytest.raises(RuntimeFault, match="E0724: inputs 'k' and 'keys' share memory"):
        step(rest[0], arrays[3].reshape(-1)[: rest[1].size].reshape(rest[1].shape), *rest[2:])
    with pytest.raises(RuntimeFault, match="E0701: 6 inputs are given, and 7 are not bound"):
        step(*rest[1:])


def test_what_cannot_be_bound_is_refused():
    module = ir(CACHE.format(donated=", donated=((1, 3), (2, 4))"))
    exe, (*_, keys, values, _, _, _, _) = compiled_here(module), cache_inputs()
    for given, why in (
        ({"keys": keys}, "E0701: 'main' is bound to keys.*donated inputs: keys, values"),
        ({"keys": keys, "values": keys.reshape(values.shape)}, "E0724: .* share memory"),
        ({"keys": torch.from_numpy(keys), "values": values}, "E0724: .* is a Tensor"),
        ({"keys": keys[:, :, ::2], "values": values}, "E0724: .* is not contiguous"),
        ({"keys": keys.astype(np.float64), "values": values}, "E0703: input 'keys'"),
    ):
        with pytest.raises(RuntimeFault, match=f"(?s){why}"):
            exe.bind(**given)
    with pytest.raises(RuntimeFault, match="E0701"):
        compiled_here(ir(CACHE.format(donated=""))).bind()


def test_a_cache_that_is_not_donated_stays_as_it_was():
    module = ir(CACHE.format(donated=""))
    exe, arrays = compiled_here(module), cache_inputs()
    kept = [a.copy() for a in arrays]
    assert_close(exe(*arrays), interpreted(module, arrays))
    for a, b in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(steps_of(exe, CopyStep)) == 2


def test_the_option_donates_by_name_and_an_artifact_keeps_it(tmp_path):
    module = ir(CACHE.format(donated=""))
    exe = treadle.compile(module, donate=("keys", "values"), threads=1, cache=False)
    exe.save(tmp_path / "step.treadle")
    for step in (exe, treadle.load(tmp_path / "step.treadle", threads=1, cache=False)):
        arrays = cache_inputs()
        expected = interpreted(module, arrays)
        found = step(*arrays)
        assert found[1] is arrays[3]
        assert found[2] is arrays[4]
        assert_close(found, expected)


def test_a_donation_prints_and_parses():
    module = ir(CACHE.format(donated=", donated=((1, 3), (2, 4))"))
    assert "donated=((1, 3), (2, 4))" in str(module)
    assert_same_ir(ir(str(module)), module)


PROGRAMS = {
    "an operand that is read later": ("x = add(a, b)", "y = sub(a, b)", "x, y"),
    "results that change places": ("x = neg(b)", "y = neg(a)", "x, y"),
    "what comes from the old contents and the new": ("x = exp(a)", "y = mul(x, a)", "x, y"),
    "the parameters themselves": ("x = neg(a)", "y = neg(b)", "a, b"),
    "the parameters, exchanged": ("x = neg(a)", "y = neg(b)", "b, a"),
    "one result that another is made of": ("x = neg(a)", "y = exp(x)", "y, x"),
    "two chains": ("x = neg(a)", "y = exp(b)\n        x2 = exp(x)\n        y2 = neg(y)", "x2, y2"),
    "a view of the other": ("r = reshape(b, shape=(4, n))", "x = permute(r, axes=(1, 0))", "x, a"),
    "a reduction of old contents at the end": (
        "x = exp(a)",
        "s = sum(a, axes=(0,), keepdims=True)\n        y = add(b, s)",
        "x, y",
    ),
}


@pytest.mark.parametrize("donated", ["((0, 0), (1, 1))", "((0, 1), (1, 0))", "((1, 0),)"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_old_contents_are_copied_where_they_are_needed(name, donated):
    first, second, results = PROGRAMS[name]
    module = ir(f"""
    @graph.function(outputs=("first", "second"), donated={donated})
    def main(a: Tensor[(n, 4), f32], b: Tensor[(n, 4), f32]):
        {first}
        {second}
        return {results}
    """)
    random = np.random.default_rng(3)
    arrays = [random.normal(size=(3, 4)).astype(np.float32) for _ in range(2)]
    expected = interpreted(module, arrays)
    found = compiled_here(module)(*arrays)
    assert_close(found, expected)
    for result, param in module.graph("main").donated:
        assert found[result] is arrays[param]


def test_a_result_is_made_in_donated_memory_that_nobody_reads():
    module = ir("""
    @graph.function(donated=((0, 1),))
    def main(a: Tensor[(n, 4), f32], b: Tensor[(n, 4), f32]):
        x = exp(a)
        return x
    """)
    exe = compiled_here(module)
    (step,) = exe.build.host.steps
    assert step.buffers == (InputSlot(0), InputSlot(1))
    a, b = np.ones((2, 4), np.float32), np.zeros((2, 4), np.float32)
    assert exe(a, b) is b
    np.testing.assert_allclose(b, np.e, rtol=1e-6)


def test_torch_tensors_are_donated_too():
    module = ir("""
    @graph.function(donated=((0, 0),))
    def main(a: Tensor[(n, 4), f32]):
        x = neg(a)
        return x
    """)
    a = torch.ones(2, 4)
    assert compiled_here(module)(a) is a
    assert torch.equal(a, -torch.ones(2, 4))


def read_only(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


BASE = np.zeros((5, 4), np.float32)


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (np.zeros((4, 3), np.float32).T, np.zeros((3, 4), np.float32), "not contiguous"),
        (read_only(np.zeros((3, 4), np.float32)), np.zeros((3, 4), np.float32), "read-only"),
        (torch.zeros(4, 3).T, torch.zeros(3, 4), "not contiguous"),
        (torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4), "gradient"),
        (BASE[:3], BASE[2:], "share memory"),
        (BASE[2:], BASE[:3], "share memory"),
    ],
)
def test_memory_that_cannot_be_given_away_is_refused(a, b, why):
    module = ir("""
    @graph.function(donated=((0, 0),))
    def main(a: Tensor[(n, 4), f32], b: Tensor[(n, 4), f32]):
        x = add(a, b)
        return x
    """)
    with pytest.raises(RuntimeFault, match=why) as caught:
        compiled_here(module)(a, b)
    assert caught.value.code == "E0724"
    assert caught.value.help


@pytest.mark.parametrize("donate", [("z",), {"a": "z"}, ("b",), {"a": "x", "b": "x"}, "a"])
def test_the_option_refuses_what_is_not_there(donate):
    module = ir("""
    @graph.function(outputs=("a",))
    def main(a: Tensor[(n, 4), f32], b: Tensor[(n,), f32]):
        x = neg(a)
        return x
    """)
    with pytest.raises(OptionError) as caught:
        treadle.compile(module, donate=donate, threads=1, cache=False)
    assert caught.value.code == "E0832"


@pytest.mark.parametrize("donated", ["((0, 1),)", "((1, 0),)", "((0, 0), (0, 1))", "((0, 5),)"])
def test_a_donation_that_does_not_fit_is_no_program(donated):
    module = ir(f"""
    @graph.function(donated={donated})
    def main(a: Tensor[(n, 4), f32], b: Tensor[(n,), f32]):
        x = neg(a)
        return x
    """)
    with pytest.raises(VerifyError) as caught:
        verify(module)
    assert caught.value.code == "E0212"


# ---- Functions that update


UPDATE = """
@tensor.function
def add_row(X: Buffer[(n, 4), f32], R: Buffer[(4,), f32], k: i64,
            Y: Output[(n, 4), f32, updates(X)]):
    for j in range(4):
        with block("Y"):
            v = spatial(4, j)
            Y[k, v] = Y[k, v] + R[v]

@graph.function
def main(x: Tensor[(n, 4), f32], r: Tensor[(4,), f32]):
    {before}
    {after}
    return {results}
"""

CALL = "call_tensor(add_row, {x}, r, out=(Tensor[(n, 4), f32],), symbols=({k},))"

UPDATES = {
    "a parameter": ("y = " + CALL.format(x="x", k=0), "z = neg(y)", "z", 1),
    "what dies there": ("y = neg(x)", "z = " + CALL.format(x="y", k=1), "z", 0),
    "what is used again": ("y = neg(x)", "z = " + CALL.format(x="y", k=1), "z, y", 1),
    "an update of an update": (
        "y = " + CALL.format(x="x", k=0),
        "z = " + CALL.format(x="y", k=1),
        "z",
        1,
    ),
}


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_copies_only_what_is_needed_again(name):
    before, after, results, copies = UPDATES[name]
    module = ir(UPDATE.format(before=before, after=after, results=results))
    verify(module)
    assert_same_ir(ir(str(module)), module)
    exe = compiled_here(module)
    x, r = np.arange(12, dtype=np.float32).reshape(3, 4), np.ones(4, np.float32)
    found = exe(x, r)
    assert_close(found if isinstance(found, tuple) else (found,), run(module, "main", x, r))
    assert len(steps_of(exe, CopyStep)) == copies


def test_what_is_updated_is_not_computed_inside_of_the_same_kernel():
    before, after, results, _ = UPDATES["what dies there"]
    module = ir(UPDATE.format(before=before, after=after, results=results))
    calls = [b.op for b in compiled_here(module).build.module.graph("main").body]
    assert sum(isinstance(op, CallTensor) for op in calls) == 2


def test_what_is_updated_is_not_read_by_the_same_kernel():
    module = ir("""
    @graph.function(donated=((0, 0),))
    def main(pages: Tensor[(p, 1, 1, 4), f32], slots: Tensor[(p,), i64]):
        rows = slice(pages, axis=2, start=0, stop=1)
        old = reshape(rows, shape=(p, 1, 4))
        new = exp(old)
        y = write_pages(pages, new, slots)
        return y
    """)
    pages = np.arange(12, dtype=np.float32).reshape(3, 1, 1, 4)
    slots = np.array([1, 2, 0])
    expected = interpreted(module, [pages, slots])
    assert_close((compiled_here(module)(pages, slots),), expected)


@pytest.mark.parametrize(
    ("header", "store"),
    [
        ("X: Buffer[(n,), f32], Y: Output[(n,), f32, updates(X)]", "X[i]"),
        ("X: Buffer[(n, 1), f32], Y: Output[(n,), f32, updates(X)]", "Y[i]"),
        (
            "X: Buffer[(n,), f32], Y: Output[(n,), f32, updates(X)],"
            " Z: Output[(n,), f32, updates(X)]",
            "Y[i]",
        ),
    ],
)
def test_an_update_that_does_not_fit_is_no_program(header, store):
    module = ir(f"""
    @tensor.function
    def f({header}):
        for i in range(n):
            Y[i] = {store} + f32(1.0)
    """)
    with pytest.raises(VerifyError) as caught:
        verify(module)
    assert caught.value.code == "E0211"
