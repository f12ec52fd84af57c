"""What each graph-level pass does, as two modules."""

from treadle.passes.canonicalize import canonicalize
from treadle.passes.fuse import fuse
from treadle.passes.inline import inline
from treadle.passes.legalize import decompose, legalize
from treadle.passes.prepare_entry import prepare_entry
from treadle.passes.resolve_casts import resolve_casts
from treadle.passes.restore_views import restore_views
from treadle.testing import assert_same_ir, ir


def test_canonicalize_constants_fold_equal_bindings_merge_and_dead_ones_go():
    before = ir("""
    w = constant(Tensor[(2,), f32], [1.0, 2.0])
    unused = constant(Tensor[(1,), f32], [0.0])

    @graph.function
    def main(x: Tensor[(n, 2), f32]) -> (Tensor[(n, 2), f32],):
        v = add(constants.w, constants.w)
        a = mul(x, v)
        b = mul(x, v)
        dead = relu(a)
        c = add(a, b)
        return c
    """)
    after = ir("""
    v = constant(Tensor[(2,), f32], [2.0, 4.0])

    @graph.function
    def main(x: Tensor[(n, 2), f32]) -> (Tensor[(n, 2), f32],):
        a = mul(x, constants.v)
        c = add(a, a)
        return c
    """)
    assert_same_ir(canonicalize(before), after)


def test_inline_a_call_becomes_the_body_over_the_callers_symbols():
    before = ir("""
    @graph.function
    def scaled(x: Tensor[(m,), f32]) -> (Tensor[(m,), f32],):
        y = mul(x, f32(2.0))
        z = neg(y)
        return z

    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        y = call(scaled, x, out=(Tensor[(n,), f32],))
        z = call(scaled, y, out=(Tensor[(n,), f32],))
        return z
    """)
    after = ir("""
    @graph.function
    def scaled(x: Tensor[(m,), f32]) -> (Tensor[(m,), f32],):
        y = mul(x, f32(2.0))
        z = neg(y)
        return z

    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        y_y = mul(x, f32(2.0))
        y_z = neg(y_y)
        z_y = mul(y_z, f32(2.0))
        z_z = neg(z_y)
        return z_z
    """)
    assert_same_ir(inline(before), after)


def test_resolve_casts_new_symbols_become_what_they_stand_for_and_those_of_the_entry_too():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n, m), f32]) -> (Tensor[(k, n), f32],):
        y = match_cast(x, type=Tensor[(k, n), f32])
        z = relu(y)
        return z
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n, n), f32]) -> (Tensor[(n, n), f32],):
        z = relu(x)
        return z
    """)
    assert_same_ir(resolve_casts(before), after)


def test_prepare_entry_inputs_constants_and_repeated_results_are_copied():
    before = ir("""
    w = constant(Tensor[(2,), f32], [1.0, 2.0])

    @graph.function
    def main(
        x: Tensor[(n,), f32],
    ) -> (Tensor[(n,), f32], Tensor[(n,), f32], Tensor[(2,), f32], Tensor[(n,), f32]):
        y = relu(x)
        return y, y, constants.w, x
    """)
    after = ir("""
    w = constant(Tensor[(2,), f32], [1.0, 2.0])

    @graph.function
    def main(
        x: Tensor[(n,), f32],
    ) -> (Tensor[(n,), f32], Tensor[(n,), f32], Tensor[(2,), f32], Tensor[(n,), f32]):
        y = relu(x)
        output_1 = expand(y, shape=(n,))
        output_2 = expand(constants.w, shape=(i64(2),))
        output_3 = expand(x, shape=(n,))
        return y, output_1, output_2, output_3
    """)
    assert_same_ir(prepare_entry(before), after)


def test_decompose_a_composed_operation_becomes_its_parts():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n,), f32],):
        y = mean(x, axes=(1,))
        return y
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n,), f32],):
        sum = sum(x, axes=(1,))
        div = div(sum, f32(4.0))
        return div
    """)
    assert_same_ir(decompose(before), after)


def test_legalize_equal_operations_share_a_program_and_literals_are_written_into_it():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        a = mul(x, f32(2.0))
        b = mul(a, f32(2.0))
        c = mul(b, x)
        return c
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        a = call_tensor(mul, x, out=(Tensor[(n,), f32],))
        b = call_tensor(mul, a, out=(Tensor[(n,), f32],))
        c = call_tensor(mul_1, b, x, out=(Tensor[(n,), f32],))
        return c

    @tensor.function
    def mul(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = X0[v0] * f32(2.0)

    @tensor.function
    def mul_1(X0: Buffer[(n,), f32], X1: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = X0[v0] * X1[v0]
    """)
    assert_same_ir(legalize(before), after)


def test_fuse_a_producer_is_written_into_its_only_consumer():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        a = call_tensor(neg, x, out=(Tensor[(n,), f32],))
        b = call_tensor(abs, a, out=(Tensor[(n,), f32],))
        return b

    @tensor.function
    def neg(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = -X0[v0]

    @tensor.function
    def abs(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = abs(X0[v0])
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32],):
        b = call_tensor(neg_abs, x, out=(Tensor[(n,), f32],))
        return b

    @tensor.function
    def neg(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = -X0[v0]

    @tensor.function
    def abs(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = abs(X0[v0])

    @tensor.function
    def neg_abs(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        T0 = alloc((n,), f32)
        for i0_0 in range(n):
            with block("Y0_0"):
                v0_0 = spatial(n, i0_0)
                T0[v0_0] = -X0[v0_0]
        for i0_1 in range(n):
            with block("Y0_1"):
                v0_1 = spatial(n, i0_1)
                Y0[v0_1] = abs(T0[v0_1])
    """)
    assert_same_ir(fuse(before), after)


def test_fuse_a_value_that_is_returned_stays():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32], Tensor[(n,), f32]):
        a = call_tensor(neg, x, out=(Tensor[(n,), f32],))
        b = call_tensor(abs, a, out=(Tensor[(n,), f32],))
        return a, b

    @tensor.function
    def neg(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = -X0[v0]

    @tensor.function
    def abs(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = abs(X0[v0])
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n,), f32]) -> (Tensor[(n,), f32], Tensor[(n,), f32]):
        a = call_tensor(neg, x, out=(Tensor[(n,), f32],))
        b = call_tensor(abs, a, out=(Tensor[(n,), f32],))
        return a, b

    @tensor.function
    def neg(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = -X0[v0]

    @tensor.function
    def abs(X0: Buffer[(n,), f32], Y0: Output[(n,), f32]):
        for i0 in range(n):
            with block("Y0"):
                v0 = spatial(n, i0)
                Y0[v0] = abs(X0[v0])
    """)
    assert_same_ir(fuse(before), after)


def test_fuse_the_last_of_a_group_may_have_several_results():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n, 3), f32]) -> (Tensor[(n, 3), f32], Tensor[(n, 3), i64]):
        a = call_tensor(neg, x, out=(Tensor[(n, 3), f32],))
        b, c = call_tensor(cum_max, a, out=(Tensor[(n, 3), f32], Tensor[(n, 3), i64]))
        return b, c

    @tensor.function
    def neg(X0: Buffer[(n, 3), f32], Y0: Output[(n, 3), f32]):
        for i0 in range(n):
            for i1 in range(3):
                with block("Y0"):
                    v0 = spatial(n, i0)
                    v1 = spatial(3, i1)
                    Y0[v0, v1] = -X0[v0, v1]

    @tensor.function
    def cum_max(X0: Buffer[(n, 3), f32], Y0: Output[(n, 3), f32], Y1: Output[(n, 3), i64]):
        for i0 in range(n):
            for i1 in range(3):
                with block("Y0"):
                    v0 = spatial(n, i0)
                    v1 = reduction(3, i1)
                    Y0[v0, v1] = select(
                        v1 > 0,
                        max(load(Y0[v0, v1 - 1], mask=v1 > 0), load(X0[v0, v1], mask=v1 > 0)),
                        X0[v0, v1],
                    )
        for i2 in range(n):
            for i3 in range(3):
                with block("Y1"):
                    v2 = spatial(n, i2)
                    v3 = reduction(3, i3)
                    Y1[v2, v3] = select(
                        (X0[v2, v3] == Y0[v2, v3]) | isnan(X0[v2, v3]),
                        v3,
                        select(v3 > 0, load(Y1[v2, v3 - 1], mask=v3 > 0), 0),
                    )
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n, 3), f32]) -> (Tensor[(n, 3), f32], Tensor[(n, 3), i64]):
        b, c = call_tensor(neg_cum_max, x, out=(Tensor[(n, 3), f32], Tensor[(n, 3), i64]))
        return b, c

    @tensor.function
    def neg(X0: Buffer[(n, 3), f32], Y0: Output[(n, 3), f32]):
        for i0 in range(n):
            for i1 in range(3):
                with block("Y0"):
                    v0 = spatial(n, i0)
                    v1 = spatial(3, i1)
                    Y0[v0, v1] = -X0[v0, v1]

    @tensor.function
    def cum_max(X0: Buffer[(n, 3), f32], Y0: Output[(n, 3), f32], Y1: Output[(n, 3), i64]):
        for i0 in range(n):
            for i1 in range(3):
                with block("Y0"):
                    v0 = spatial(n, i0)
                    v1 = reduction(3, i1)
                    Y0[v0, v1] = select(
                        v1 > 0,
                        max(load(Y0[v0, v1 - 1], mask=v1 > 0), load(X0[v0, v1], mask=v1 > 0)),
                        X0[v0, v1],
                    )
        for i2 in range(n):
            for i3 in range(3):
                with block("Y1"):
                    v2 = spatial(n, i2)
                    v3 = reduction(3, i3)
                    Y1[v2, v3] = select(
                        (X0[v2, v3] == Y0[v2, v3]) | isnan(X0[v2, v3]),
                        v3,
                        select(v3 > 0, load(Y1[v2, v3 - 1], mask=v3 > 0), 0),
                    )

    @tensor.function
    def neg_cum_max(X0: Buffer[(n, 3), f32], Y0: Output[(n, 3), f32], Y1: Output[(n, 3), i64]):
        T0 = alloc((n, 3), f32)
        for i0_0 in range(n):
            for i1_0 in range(3):
                with block("Y0_0"):
                    v0_0 = spatial(n, i0_0)
                    v1_0 = spatial(3, i1_0)
                    T0[v0_0, v1_0] = -X0[v0_0, v1_0]
        for i0_1 in range(n):
            for i1_1 in range(3):
                with block("Y0_1"):
                    v0_1 = spatial(n, i0_1)
                    v1_1 = reduction(3, i1_1)
                    Y0[v0_1, v1_1] = select(
                        v1_1 > 0,
                        max(
                            load(Y0[v0_1, v1_1 - 1], mask=v1_1 > 0),
                            load(T0[v0_1, v1_1], mask=v1_1 > 0),
                        ),
                        T0[v0_1, v1_1],
                    )
        for i2_1 in range(n):
            for i3_1 in range(3):
                with block("Y1_1"):
                    v2_1 = spatial(n, i2_1)
                    v3_1 = reduction(3, i3_1)
                    Y1[v2_1, v3_1] = select(
                        (T0[v2_1, v3_1] == Y0[v2_1, v3_1]) | isnan(T0[v2_1, v3_1]),
                        v3_1,
                        select(v3_1 > 0, load(Y1[v2_1, v3_1 - 1], mask=v3_1 > 0), 0),
                    )
    """)
    assert_same_ir(fuse(before), after)


def test_restore_views_a_flat_copy_inside_becomes_a_view_and_a_result_does_not():
    before = ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n * 4,), f32], Tensor[(n, 2, 2), f32]):
        a = call_tensor(reshape, x, out=(Tensor[(n * 4,), f32],))
        b = call_tensor(neg, a, out=(Tensor[(n * 4,), f32],), symbols=(n,))
        c = call_tensor(reshape_1, x, out=(Tensor[(n, 2, 2), f32],))
        return b, c

    @tensor.function
    def reshape(X0: Buffer[(n, 4), f32], Y0: Output[(n * 4,), f32]):
        for i0 in range(n * 4):
            with block("Y0"):
                v0 = spatial(n * 4, i0)
                Y0[v0] = X0[v0 // 4, v0 % 4]

    @tensor.function
    def neg(X0: Buffer[(n * 4,), f32], Y0: Output[(n * 4,), f32], n: i64):
        for i0 in range(n * 4):
            with block("Y0"):
                v0 = spatial(n * 4, i0)
                Y0[v0] = -X0[v0]

    @tensor.function
    def reshape_1(X0: Buffer[(n, 4), f32], Y0: Output[(n, 2, 2), f32]):
        for i0 in range(n):
            for i1 in range(2):
                for i2 in range(2):
                    with block("Y0"):
                        v0 = spatial(n, i0)
                        v1 = spatial(2, i1)
                        v2 = spatial(2, i2)
                        Y0[v0, v1, v2] = X0[v0, v1 * 2 + v2]
    """)
    after = ir("""
    @graph.function
    def main(x: Tensor[(n, 4), f32]) -> (Tensor[(n * 4,), f32], Tensor[(n, 2, 2), f32]):
        a = reshape(x, shape=(n * 4,))
        b = call_tensor(neg, a, out=(Tensor[(n * 4,), f32],), symbols=(n,))
        c = call_tensor(reshape_1, x, out=(Tensor[(n, 2, 2), f32],))
        return b, c

    @tensor.function
    def reshape(X0: Buffer[(n, 4), f32], Y0: Output[(n * 4,), f32]):
        for i0 in range(n * 4):
            with block("Y0"):
                v0 = spatial(n * 4, i0)
                Y0[v0] = X0[v0 // 4, v0 % 4]

    @tensor.function
    def neg(X0: Buffer[(n * 4,), f32], Y0: Output[(n * 4,), f32], n: i64):
        for i0 in range(n * 4):
            with block("Y0"):
                v0 = spatial(n * 4, i0)
                Y0[v0] = -X0[v0]

    @tensor.function
    def reshape_1(X0: Buffer[(n, 4), f32], Y0: Output[(n, 2, 2), f32]):
        for i0 in range(n):
            for i1 in range(2):
                for i2 in range(2):
                    with block("Y0"):
                        v0 = spatial(n, i0)
                        v1 = spatial(2, i1)
                        v2 = spatial(2, i2)
                        Y0[v0, v1, v2] = X0[v0, v1 * 2 + v2]
    """)
    assert_same_ir(restore_views(before), after)
