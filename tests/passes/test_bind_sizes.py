"""Sizes that are data: counted, bound to symbols, tested."""

import numpy as np
import pytest

from treadle.base.errors import RuntimeFault, TypeMismatch
from treadle.ir.analysis import bound_symbols
from treadle.ir.calls import BindSymbol
from treadle.ir.interpret import run
from treadle.ir.module import Module
from treadle.ir.parser import parse
from treadle.ir.verify import verify
from treadle.ops import OPS_BY_NAME
from treadle.passes.bind_sizes import bind_sizes
from treadle.passes.check_sizes import check_sizes
from treadle.passes.inline import inline
from treadle.passes.resolve_casts import resolve_casts
from treadle.testing import assert_same_ir, ir


def bound(text: str) -> Module:
    module = check_sizes(resolve_casts(bind_sizes(inline(ir(text)))))
    verify(module)
    return module


def claims(module: Module) -> list[list[str]]:
    body = module.graph("main").body
    return [[str(c) for c in b.op.where] for b in body if isinstance(b.op, BindSymbol)]


SELECTED = """
    @graph.function
    def main(x: Tensor[(n,), f32]):
        p = flat_nonzero(x)
        q = match_cast(p, type=Tensor[(u,), i64])
        y = gather(x, q, axis=0)
        return y
"""


def test_a_count_becomes_a_symbol_and_what_follows_is_as_large():
    assert_same_ir(
        bound(SELECTED),
        ir("""
        @graph.function
        def main(x: Tensor[(n,), f32]):
            not_equal = not_equal(x, f32(0.0))
            count_true = count_true(not_equal)
            cum_sum = cum_sum(count_true, axis=0, exclusive=True)
            sum = sum(count_true, axes=(0,))
            bind_symbol = bind_symbol(sum, symbol=size, where=(size >= 0, size <= n))
            compact = compact(not_equal, cum_sum, size=size)
            y = gather(x, compact, axis=0)
            return y
        """),
    )


def test_the_meaning_stays():
    x = np.array([0, 1, 0, 2, 3], np.float32)
    for module in (ir(SELECTED), bound(SELECTED)):
        (y,) = run(module, "main", x)
        np.testing.assert_array_equal(y, [1, 2, 3])


def test_types_are_deduced_again_without_a_cast():
    module = bound("""
        @graph.function
        def main(x: Tensor[(n,), f32]):
            p = flat_nonzero(x)
            q = neg(p)
            return q
    """)
    assert str(module.graph("main").results[0].type) == "Tensor[(size,), i64]"


def test_a_module_without_such_sizes_is_left_as_it_is():
    module = ir("""
        @graph.function
        def main(x: Tensor[(n,), f32]):
            y = relu(x)
            return y
    """)
    assert bind_sizes(module) is module
    assert check_sizes(module).graph("main") is module.graph("main")


def test_equal_counts_are_one_symbol():
    module = bound("""
        @graph.function
        def main(x: Tensor[(n, m), f32]):
            p = nonzero(x)
            z = neg(x)
            q = nonzero(x)
            r = nonzero(z)
            return p, q, r
    """)
    assert [v.name for v in bound_symbols(module.graph("main"))] == ["size", "size_1"]


def test_symbols_of_inlined_functions_are_renamed():
    module = inline(
        ir("""
        @graph.function
        def rows(x: Tensor[(n,), f32]):
            p = flat_nonzero(x)
            q = match_cast(p, type=Tensor[(u,), i64])
            s = sum(q, axes=(0,))
            return s

        @graph.function
        def main(x: Tensor[(u,), f32], y: Tensor[(m,), f32]):
            a = call(rows, x, out=(Tensor[(), i64],))
            b = call(rows, y, out=(Tensor[(), i64],))
            return a, b
        """)
    )
    x, y = np.array([1, 0, 1], np.float32), np.ones(7, np.float32)
    assert [int(r) for r in run(module, "main", x, y)] == [2, 21]


def test_slices_and_dimensions_are_tested_where_their_size_is_known():
    module = bound("""
        @graph.function
        def main(x: Tensor[(n,), f32], k: Tensor[(), i64]):
            b = bind_symbol(k, symbol=u)
            y = slice(x, axis=0, start=0, stop=u)
            z = full(shape=(u - 1,), value=0.0, dtype=f32)
            return y, z
    """)
    (found,) = claims(module)
    assert "u <= n" in found or "u < n + 1" in found
    assert any("1" in c and "f64" not in c for c in found)
    x = np.arange(5, dtype=np.float32)
    assert [len(r) for r in run(module, "main", x, np.int64(4))] == [4, 3]
    for k in (0, 6, -1):
        with pytest.raises(RuntimeFault, match="E0707"):
            run(module, "main", x, np.int64(k))


def test_what_the_program_asserts_of_sizes_is_tested_at_once():
    module = bound("""
        @graph.function
        def main(x: Tensor[(n,), f32], k: Tensor[(), i64]):
            b = bind_symbol(k, symbol=u, where=(u >= 0,))
            a = assert_true(literal(u * 2 < n), message="too many")
            y = full(shape=(u,), value=0.0, dtype=f32)
            return y
    """)
    assert any("n" in c for c in claims(module)[0])
    assert not any(b.op.op_name() == "assert_true" for b in module.graph("main").body)


def test_a_size_without_a_bound_is_tested_not_to_be_beyond_memory():
    module = bound("""
        @graph.function
        def main(k: Tensor[(), i64]):
            b = bind_symbol(k, symbol=u)
            y = full(shape=(u, u), value=0.0, dtype=f32)
            return y
    """)
    for k in (1 << 31, 1 << 62):
        with pytest.raises(RuntimeFault, match="E0707"):
            run(module, "main", np.int64(k))


class TestBindSymbol:
    def test_prints_and_parses(self):
        module = ir("""
            @graph.function
            def main(k: Tensor[(), i64]):
                b = bind_symbol(k, symbol=u, where=(u >= 1, u < 9))
                y = full(shape=(u,), value=0.0, dtype=f32)
                return y, b
        """)
        assert str(parse(str(module), OPS_BY_NAME)) == str(module)

    @pytest.mark.parametrize(
        ("kind", "code"), [("Tensor[(), i32]", "E0103"), ("Tensor[(1,), i64]", "E0107")]
    )
    def test_takes_an_integer(self, kind, code):
        with pytest.raises(TypeMismatch, match=code):
            ir(f"""
                @graph.function
                def main(k: {kind}):
                    b = bind_symbol(k, symbol=u)
                    return b
            """)

    def test_binds_a_symbol(self):
        with pytest.raises(TypeMismatch, match="E0108"):
            ir("""
                @graph.function
                def main(k: Tensor[(), i64]):
                    b = bind_symbol(k, symbol=u + 1)
                    return b
            """)

    def test_binds_a_new_symbol(self):
        module = ir("""
            @graph.function
            def main(x: Tensor[(u,), f32], k: Tensor[(), i64]):
                b = bind_symbol(k, symbol=u)
                return b
        """)
        with pytest.raises(Exception, match="E0201"):
            verify(module)
