"""What each loop-level pass does, as two programs."""

from treadle.ir.tensor import TensorFunction
from treadle.passes.flatten_buffers import flatten_buffers
from treadle.passes.lower_blocks import lower_blocks
from treadle.passes.lower_storage import demote_registers, vector_storage
from treadle.passes.shrink_allocations import shrink_allocations
from treadle.passes.sink_allocations import sink_allocations
from treadle.passes.specialize_tails import specialize_tails
from treadle.passes.unroll import unroll
from treadle.passes.vectorize import vectorize
from treadle.testing import assert_same_ir, ir


def function_of(text: str) -> TensorFunction:
    return ir(text).tensor_functions[0]


def test_lower_blocks_axes_become_loops_and_starts_conditions():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n, 8), f32], Y: Output[(n,), f32]):
        for i in range((n + 3) // 4):
            for j in range(4):
                for k in range(8):
                    with block("Y"):
                        vi = spatial(n, i * 4 + j)
                        vk = reduction(8, k)
                        where(i * 4 + j < n)
                        with init():
                            Y[vi] = f32(0.0)
                        Y[vi] = Y[vi] + X[vi, vk]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n, 8), f32], Y: Output[(n,), f32]):
        for i in range((n + 3) // 4):
            for j in range(4):
                for k in range(8):
                    if i * 4 + j < n:
                        if k == 0:
                            Y[i * 4 + j] = f32(0.0)
                        Y[i * 4 + j] = Y[i * 4 + j] + X[i * 4 + j, k]
    """)
    assert_same_ir(lower_blocks(before), after)


def test_sink_allocations_a_temporary_goes_into_the_loop_whose_iterations_own_it():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(4, 8), f32], Y: Output[(4, 8), f32]):
        T = alloc((4, 8), f32)
        for i in range(4):
            for j in range(8):
                with block("T"):
                    ti = spatial(4, i)
                    tj = spatial(8, j)
                    T[ti, tj] = X[ti, tj] * f32(2.0)
            for k in range(8):
                with block("Y"):
                    yi = spatial(4, i)
                    yk = spatial(8, k)
                    Y[yi, yk] = T[yi, 7 - yk]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(4, 8), f32], Y: Output[(4, 8), f32]):
        for i in range(4):
            T = alloc((4, 8), f32)
            for j in range(8):
                with block("T"):
                    ti = spatial(4, i)
                    tj = spatial(8, j)
                    T[ti, tj] = X[ti, tj] * f32(2.0)
            for k in range(8):
                with block("Y"):
                    yi = spatial(4, i)
                    yk = spatial(8, k)
                    Y[yi, yk] = T[yi, 7 - yk]
    """)
    assert_same_ir(sink_allocations(before), after)


def test_sink_allocations_a_temporary_stays_outside_of_the_loop_that_reduces_into_it():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(4, 8), f32], Y: Output[(8,), f32]):
        T = alloc((8,), f32)
        for i in range(4):
            for j in range(8):
                with block("T"):
                    vj = spatial(8, j)
                    vi = reduction(4, i)
                    with init():
                        T[vj] = f32(0.0)
                    T[vj] = T[vj] + X[vi, vj]
        for k in range(8):
            with block("Y"):
                yk = spatial(8, k)
                Y[yk] = T[yk]
    """)
    assert_same_ir(sink_allocations(before), before)


BRANCHES = """
    @tensor.function
    def f(X: Buffer[(n, 4), f32], Y: Output[(n, 4), f32]):
        if n <= 8:
            T = alloc((n, 4), f32)
            for i in range(n):
                for j in range(4):
                    with block("T"):
                        a = spatial(n, i)
                        b = spatial(4, j)
                        T[a, b] = X[a, b] * f32(2.0)
                for k in range(4):
                    with block("Y"):
                        c = spatial(n, i)
                        d = spatial(4, k)
                        Y[c, d] = T[c, d]
        else:
            S = alloc((n, 4), f32)
            for p in range(n):
                for q in range(4):
                    with block("S"):
                        e = spatial(n, p)
                        g = spatial(4, q)
                        S[e, g] = X[e, g] + f32(1.0)
            for u in range(n):
                for v in range(4):
                    with block("Y_1"):
                        h = spatial(n, u)
                        l = spatial(4, v)
                        Y[h, l] = S[h, l]
"""


def test_sink_allocations_goes_into_branches_and_keeps_what_all_of_one_needs_before_both():
    t, s = "T = alloc((n, 4), f32)\n", "S = alloc((n, 4), f32)\n"
    wanted = BRANCHES.replace("            " + t, "").replace("            " + s, "")
    wanted = wanted.replace("        if n", "        " + s + "        if n")
    wanted = wanted.replace(
        "            for i in range(n):\n",
        "            for i in range(n):\n                " + t,
    )
    before = ir(BRANCHES).tensor("f")
    assert_same_ir(sink_allocations(before), ir(wanted).tensor("f"))


def test_shrink_allocations_a_temporary_keeps_the_region_that_its_loop_touches():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        for i in range(n):
            T = alloc((n, 8), f32)
            for j in range(3):
                T[i, j + 2] = X[i, j]
            for k in range(3):
                Y[i, k] = T[i, k + 2]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n, 8), f32], Y: Output[(n, 8), f32]):
        for i in range(n):
            T = alloc((1, 3), f32, scope="stack")
            for j in range(3):
                T[0, j] = X[i, j]
            for k in range(3):
                Y[i, k] = T[0, k]
    """)
    assert_same_ir(shrink_allocations(before), after)


def test_shrink_allocations_a_window_that_moves_keeps_its_halo():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(40,), f32], Y: Output[(32,), f32]):
        for i in range(8):
            T = alloc((40,), f32)
            for j in range(6):
                T[i * 4 + j] = X[i * 4 + j]
            for k in range(4):
                Y[i * 4 + k] = T[i * 4 + k] + T[i * 4 + k + 2]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(40,), f32], Y: Output[(32,), f32]):
        for i in range(8):
            T = alloc((6,), f32, scope="stack")
            for j in range(6):
                T[j] = X[i * 4 + j]
            for k in range(4):
                Y[i * 4 + k] = T[k] + T[k + 2]
    """)
    assert_same_ir(shrink_allocations(before), after)


def test_specialize_tails_a_full_tile_has_no_condition_and_a_short_one_a_version_per_length():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range((n + 2) // 3):
            for j in unrolled(3):
                if i * 3 + j < n:
                    Y[i * 3 + j] = X[i * 3 + j]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range((n + 2) // 3):
            if i * 3 + 2 < n:
                for j in unrolled(3):
                    Y[i * 3 + j] = X[i * 3 + j]
            else:
                if n - i * 3 == 2:
                    for j_t_2 in unrolled(3):
                        if j_t_2 < 2:
                            Y[i * 3 + j_t_2] = X[i * 3 + j_t_2]
                else:
                    if n - i * 3 == 1:
                        for j_t in unrolled(3):
                            if j_t < 1:
                                Y[i * 3 + j_t] = X[i * 3 + j_t]
    """)
    assert_same_ir(specialize_tails(before), after)


def test_specialize_tails_lanes_of_a_short_tile_keep_their_condition():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range((n + 7) // 8):
            for j in vectorized(8):
                if i * 8 + j < n:
                    Y[i * 8 + j] = X[i * 8 + j]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range((n + 7) // 8):
            if i * 8 + 7 < n:
                for j in vectorized(8):
                    Y[i * 8 + j] = X[i * 8 + j]
            else:
                for j_t in vectorized(8):
                    if i * 8 + j_t < n:
                        Y[i * 8 + j_t] = X[i * 8 + j_t]
    """)
    assert_same_ir(specialize_tails(before), after)


def test_specialize_tails_a_serial_loop_under_a_limit_ends_early():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range((n + 7) // 8):
            for j in range(8):
                if i * 8 + j < n:
                    Y[i * 8 + j] = X[i * 8 + j]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], Y: Output[(n,), f32]):
        for i in range((n + 7) // 8):
            for j in range(min(n - i * 8, 8)):
                Y[i * 8 + j] = X[i * 8 + j]
    """)
    assert_same_ir(specialize_tails(before), after)


def test_flatten_buffers_indices_meet_in_one_expression_and_symbols_become_parameters():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n, 6), f32], Y: Output[(n * 6,), f32]):
        T = alloc((2, 3), f32, scope="stack")
        for i in range(n * 6):
            T[i % 2, 1] = X[i // 6, i % 6]
            Y[i] = T[i % 2, 1]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n * 6,), f32], Y: Output[(n * 6,), f32], n: i64):
        assume(n >= 0)
        T = alloc((6,), f32, scope="stack")
        for i in range(n * 6):
            T[i % 2 * 3 + 1] = X[i]
            Y[i] = T[i % 2 * 3 + 1]
    """)
    assert_same_ir(flatten_buffers(before), after)


def test_unroll_every_copy_has_its_own_index_and_temporary():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(3,), f32], Y: Output[(3,), f32]):
        for i in unrolled(3):
            T = alloc((1,), f32, scope="register")
            T[0] = X[i]
            if i < 2:
                Y[i] = T[0]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(3,), f32], Y: Output[(3,), f32]):
        T = alloc((1,), f32, scope="register")
        T[0] = X[0]
        Y[0] = T[0]
        T_iu1 = alloc((1,), f32, scope="register")
        T_iu1[0] = X[1]
        Y[1] = T_iu1[0]
        T_iu2 = alloc((1,), f32, scope="register")
        T_iu2[0] = X[2]
    """)
    assert_same_ir(unroll(before), after)


def test_vectorize_a_loop_over_lanes_becomes_a_ramp_and_its_condition_a_mask():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], s: f32, Y: Output[(n,), f32]):
        for i in range((n + 7) // 8):
            for j in vectorized(8):
                if i * 8 + j < n:
                    Y[i * 8 + j] = X[i * 8 + j] * s
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(n,), f32], s: f32, Y: Output[(n,), f32]):
        for i in range((n + 7) // 8):
            store(
                Y[ramp(i * 8, 1, i64x8)],
                load(X[ramp(i * 8, 1, i64x8)], mask=ramp(i * 8, 1, i64x8) < broadcast(n, i64x8))
                * broadcast(s, f32x8),
                mask=ramp(i * 8, 1, i64x8) < broadcast(n, i64x8),
            )
    """)
    assert_same_ir(vectorize(before), after)


def test_vectorize_lanes_that_meet_in_one_element_are_combined_first():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(8,), f32], Y: Output[(1,), f32]):
        for j in vectorized(8):
            Y[0] = Y[0] + X[j]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(8,), f32], Y: Output[(1,), f32]):
        Y[0] = Y[0] + reduce_add(X[ramp(0, 1, i64x8)])
    """)
    assert_same_ir(vectorize(before), after)


def test_vectorize_a_limit_to_one_lane_stays_a_mask():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(33,), f32], Y: Output[(33,), f32]):
        for j in vectorized(16):
            if j + 32 < 33:
                Y[j + 32] = X[j + 32]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(33,), f32], Y: Output[(33,), f32]):
        store(
            Y[ramp(32, 1, i64x16)],
            load(X[ramp(32, 1, i64x16)], mask=ramp(0, 1, i64x16) <= i64x16(0)),
            mask=ramp(0, 1, i64x16) <= i64x16(0),
        )
    """)
    assert_same_ir(vectorize(before), after)


def test_vector_storage_a_tile_of_whole_vectors_is_made_of_vectors():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(32,), f32], Y: Output[(32,), f32]):
        T = alloc((32,), f32, scope="register")
        T[ramp(0, 1, i64x16)] = X[ramp(0, 1, i64x16)]
        T[ramp(16, 1, i64x16)] = X[ramp(16, 1, i64x16)]
        store(
            T[ramp(16, 1, i64x16)],
            broadcast(f32(0.0), f32x16),
            mask=ramp(0, 1, i64x16) < broadcast(i64(3), i64x16),
        )
        Y[ramp(0, 1, i64x16)] = T[ramp(16, 1, i64x16)]
        Y[ramp(16, 1, i64x16)] = T[ramp(0, 1, i64x16)]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(32,), f32], Y: Output[(32,), f32]):
        T = alloc((2,), f32x16, scope="register")
        T[0] = X[ramp(0, 1, i64x16)]
        T[1] = X[ramp(16, 1, i64x16)]
        T[1] = select(
            ramp(0, 1, i64x16) < broadcast(3, i64x16), broadcast(f32(0.0), f32x16), T[1]
        )
        Y[ramp(0, 1, i64x16)] = T[1]
        Y[ramp(16, 1, i64x16)] = T[0]
    """)
    assert_same_ir(vector_storage(before), after)


def test_vector_storage_what_a_mask_leaves_out_is_not_read_outside_of_the_tile():
    before = function_of("""
    @tensor.function
    def f(Y: Output[(4, 16), f32]):
        T = alloc((4, 16), f32, scope="stack")
        for i in range(4):
            T[i, ramp(0, 1, i64x16)] = broadcast(f32(1.0), f32x16)
        for j in range(4):
            Y[j, ramp(0, 1, i64x16)] = select(
                broadcast(j >= 1, boolx16),
                load(T[j - 1, ramp(0, 1, i64x16)], mask=broadcast(j >= 1, boolx16)),
                broadcast(f32(0.0), f32x16),
            )
    """)
    text = str(vector_storage(before))
    assert "T = alloc((4, 1), f32x16" in text
    assert "T[min(max(j - 1, 0), 3), 0]" in text


def test_demote_registers_at_changing_places_move_to_the_stack():
    before = function_of("""
    @tensor.function
    def f(X: Buffer[(4,), f32], Y: Output[(4,), f32]):
        T = alloc((4,), f32, scope="register")
        for i in range(4):
            T[i] = X[i]
        for k in range(4):
            Y[k] = T[3 - k]
    """)
    after = function_of("""
    @tensor.function
    def f(X: Buffer[(4,), f32], Y: Output[(4,), f32]):
        T = alloc((4,), f32, scope="stack")
        for i in range(4):
            T[i] = X[i]
        for k in range(4):
            Y[k] = T[3 - k]
    """)
    assert_same_ir(demote_registers(before), after)
