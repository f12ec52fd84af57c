"""Attention over pages, compiled: equal to its definition whatever the lengths, heads and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle.expr.dtype import DType, bf16, f32, f64
from treadle.ops import PagedAttention, WritePages
from treadle.testing import compiled_here, ir

SIZES = {  # heads, shared heads, width of keys, width of values, places of a page
    "one head for each": (3, 3, 32, 32, 16),
    "shared by four": (8, 2, 16, 16, 16),
    "one for all": (12, 1, 8, 24, 16),
    "shared by eight, wide values": (8, 1, 16, 80, 8),
    "shared by very many": (34, 1, 8, 16, 16),
    "odd": (6, 2, 5, 7, 3),
    "two shared by eight": (16, 2, 16, 16, 16),
}
EXACT = {f32: 2e-5, f64: 1e-12, bf16: 3e-2}


def program(op: PagedAttention, dtype: DType, sizes: tuple[int, ...], slopes: bool = False) -> str:
    heads, shared, d, e, s = sizes
    fields = ", ".join(
        f"{n}={v!r}"
        for n in ("scale", "window", "softcap", "together")
        if (v := getattr(op, n)) is not None
    )
    more = f", slopes: Tensor[({heads},), {dtype}]" if slopes else ""
    operands = "q, keys, values, table, sequences, positions" + (", slopes" if slopes else "")
    return f"""
    @graph.function
    def main(q: Tensor[(t, {heads}, {d}), {dtype}], keys: Tensor[(p, {shared}, {d}, {s}), {dtype}],
             values: Tensor[(p, {shared}, {s}, {e}), {dtype}], table: Tensor[(b, m), i64],
             sequences: Tensor[(t,), i64], positions: Tensor[(t,), i64]{more}):
        y = paged_attention({operands}{", " if fields else ""}{fields})
        return y
    """


def batch(
    sizes: tuple[int, ...], spans: list[tuple[int, int]], dtype: DType = f32, slopes: bool = False
) -> list[np.ndarray]:
    """The operands for sequences of which the tokens from one place to another are new. Pages that
    no sequence has, and places after the last token, hold no numbers."""
    heads, shared, d, e, s = sizes
    random = np.random.default_rng(len(spans) + sum(map(sum, spans)))
    counts = [-(-end // s) for _, end in spans]
    pages, most = sum(counts) + 2, max(counts, default=0) + 1
    order = iter(random.permutation(pages))
    table = np.zeros((len(spans), most), np.int64)
    keys = np.full((pages, shared, d, s), np.nan)
    values = np.full((pages, shared, s, e), np.nan)
    for row, (_, end) in enumerate(spans):
        for k in range(counts[row]):
            page, used = next(order), min(s, end - k * s)
            table[row, k] = page
            keys[page, :, :, :used] = random.normal(size=(shared, d, used))
            values[page, :, :used] = random.normal(size=(shared, used, e))
    sequences = [row for row, (begin, end) in enumerate(spans) for _ in range(begin, end)]
    positions = [place for begin, end in spans for place in range(begin, end)]
    q = random.normal(size=(len(positions), heads, d))
    floats = [x.astype(dtype.numpy) for x in (q, keys, values)]
    found = [*floats, table, np.array(sequences, np.int64), np.array(positions, np.int64)]
    return [*found, random.uniform(0, 0.5, heads).astype(dtype.numpy)] if slopes else found


RAGGED = [(0, 19), (16, 17), (5, 6), (30, 50), (0, 1), (47, 48)]


def check(op: PagedAttention, exe: treadle.Executable, arrays: list[np.ndarray], dtype: DType):
    expected = op.reference(*arrays)
    assert np.isfinite(expected.astype(np.float64)).all()
    limit = EXACT[dtype]
    found = exe(*arrays)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(
        found.astype(np.float64), expected.astype(np.float64), rtol=limit, atol=limit
    )


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("one head for each", PagedAttention(window=7)),
        ("shared by four", PagedAttention()),
        ("one for all", PagedAttention(softcap=2.0, window=33)),
        ("shared by eight, wide values", PagedAttention(window=1, scale=0.3)),
        ("shared by very many", PagedAttention()),
        ("odd", PagedAttention(window=20)),
        ("one head for each", PagedAttention(together=3)),
        ("shared by four", PagedAttention(window=18, together=2)),
        ("two shared by eight", PagedAttention(together=2)),
    ],
)
def test_one_program_serves_prompts_and_steps_of_any_length(name, op):
    sizes = SIZES[name]
    exe = compiled_here(ir(program(op, f32, sizes)))
    for spans in (RAGGED, [(0, 40)], [(12, 13)], [(20, 37), (0, 0), (3, 4), (8, 24)], []):
        check(op, exe, batch(sizes, spans), f32)


@pytest.mark.parametrize("dtype", [f64, bf16], ids=str)
def test_every_type_of_floats(dtype):
    op, sizes = PagedAttention(window=40), (4, 2, 16, 16, 16)
    exe = compiled_here(ir(program(op, dtype, sizes)))
    check(op, exe, batch(sizes, RAGGED, dtype), dtype)


@pytest.mark.parametrize("step", [3.0, -3.0, 40.0, 0.2])
def test_scores_that_grow_or_fall_from_key_to_key(step):
    sizes = heads, _, d, _, _ = SIZES["one head for each"]
    arrays = batch(sizes, [(0, 90), (80, 81)])
    q, keys, table, sequences = arrays[0], arrays[1], arrays[3], arrays[4]
    q[:], q[..., 0] = 0, np.sqrt(d)
    for number, page in enumerate(table[0]):
        keys[page, :, 0] = step * (16 * number + np.arange(16))
    arrays[4] = np.zeros_like(sequences)
    op = PagedAttention()
    check(op, compiled_here(ir(program(op, f32, sizes))), arrays, f32)
    nan = arrays[0].copy()
    nan[7, 1] = np.nan
    found = compiled_here(ir(program(op, f32, sizes)))(nan, *arrays[1:])
    assert np.isnan(found[7, 1]).all()
    assert np.isfinite(np.delete(found, 7, 0)).all()
    assert found.shape[1] == heads


def test_slopes_shift_scores_by_distance():
    op, sizes = PagedAttention(softcap=3.0), SIZES["shared by four"]
    exe = compiled_here(ir(program(op, f32, sizes, slopes=True)))
    check(op, exe, batch(sizes, RAGGED, slopes=True), f32)


def test_threads_and_strict_give_the_same():
    sizes = SIZES["shared by four"]
    arrays = batch(sizes, RAGGED)
    for op in (PagedAttention(), PagedAttention(together=2)):
        module = ir(program(op, f32, sizes))
        for options in ({"threads": 2}, {"threads": 1, "numerics": "strict"}):
            check(op, treadle.compile(module, cache=False, **options), arrays, f32)


def test_an_older_machine_computes_the_same():
    op, sizes = PagedAttention(), SIZES["one head for each"]
    exe = compiled_here(ir(program(op, f32, sizes)), "x86-64-v3")
    check(op, exe, batch(sizes, RAGGED), f32)


def test_large_scores_do_not_overflow():
    op, sizes = PagedAttention(scale=1.0), (2, 1, 8, 8, 16)
    arrays = batch(sizes, [(0, 40)])
    arrays[0] *= 100
    check(op, compiled_here(ir(program(op, f32, sizes))), arrays, f32)


def test_a_token_of_a_negative_position_sees_nothing():
    op, sizes = PagedAttention(), (2, 1, 8, 8, 16)
    arrays = batch(sizes, [(0, 20)])
    arrays[5][3:12] = -1
    found = compiled_here(ir(program(op, f32, sizes)))(*arrays)
    assert not found[3:12].any()
    np.testing.assert_allclose(found, op.reference(*arrays), rtol=2e-5, atol=2e-5)


def test_rows_that_a_table_names_are_asked_for_and_work_is_counted():
    op, sizes = PagedAttention(), (2, 1, 8, 16, 16)
    exe = compiled_here(ir(program(op, f32, sizes)))
    (text,) = [str(f) for f in exe.build.module.tensor_functions if "attend" in str(f)]
    assert "prefetch_far(X1[" in text
    assert "prefetch_far(X2[" in text
    rows = exe.profile(*batch(sizes, [(0, 40)]), runs=1).rows
    assert max(r.flops for r in rows) > 0


def test_pages_that_are_read_from_end_to_end_are_not_asked_for():
    def hints(together):
        op = PagedAttention(together=together)
        exe = compiled_here(ir(program(op, f32, (8, 8, 64, 64, 16))))
        (text,) = [str(f) for f in exe.build.module.tensor_functions if "attend" in str(f)]
        return text.count("prefetch_far")

    # All heads of a page are read from end to end; tokens that go together still take one head.
    assert 0 < hints(8) < hints(4)


ANY = compiled_here(ir(program(PagedAttention(window=21), f32, (4, 2, 8, 8, 4))))


@settings(max_examples=40, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 20)).map(lambda p: (p[0], p[0] + p[1])),
        max_size=6,
    )
)
def test_any_batch(spans):
    op = PagedAttention(window=21)
    check(op, ANY, batch((4, 2, 8, 8, 4), spans), f32)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_go_to_their_slots_and_the_last_of_equal_ones_stays(transposed, threads):
    op = WritePages(transposed)
    shape = "(p, 2, 8, 16)" if transposed else "(p, 2, 16, 8)"
    exe = treadle.compile(
        ir(f"""
        @graph.function
        def main(pages: Tensor[{shape}, f32], new: Tensor[(t, 2, 8), f32],
                 slots: Tensor[(t,), i64]):
            y = write_pages(pages, new, slots, transposed={transposed})
            return y
        """),
        threads=threads,
        cache=False,
    )
    random = np.random.default_rng(1)
    pages = random.normal(size=(5, 2, 8, 16) if transposed else (5, 2, 16, 8)).astype(np.float32)
    for slots in ([], [3], [17, -1, 17, 79, 0, -5, 80, 200, 0], list(range(40))):
        new = random.normal(size=(len(slots), 2, 8)).astype(np.float32)
        at = np.array(slots, np.int64)
        np.testing.assert_array_equal(exe(pages, new, at), op.reference(pages, new, at))
