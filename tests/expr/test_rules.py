from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.expr.dtype import DTYPES, f32, i64
from treadle.expr.evaluate import evaluate
from treadle.expr.rulebook import ALL_RULES
from treadle.expr.rules import ON, Rewrite, rule
from treadle.expr.scalar import Apply, Const, Expr, Var


def same(a, b):
    a, b = np.broadcast_arrays(a, b)
    equal = (a == b) | ((a != a) & (b != b))
    return bool(
        np.all(equal & ((np.signbit(a) == np.signbit(b)) | (a != a) | (a.dtype.kind != "f")))
    )


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda r: r.name)
@given(source=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_rule_keeps_the_value(rule, source):
    case = rule.draw(source)
    assert case is not None
    assert case.result.dtype is case.pattern.dtype
    assert same(evaluate(case.pattern, case.env), evaluate(case.result, case.env)), case


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda r: r.name)
def test_rule_matches_its_own_pattern_at_each_of_its_types(rule):
    for dtype in ON[rule.on]:
        traced = rule.at(dtype)
        found = traced.match(traced.pattern)
        free = {v for v in traced.variables if v not in traced.constants}
        assert traced.constants or (found is not None and set(found) == free)


def test_names_of_rules_are_unique():
    names = [r.name for r in ALL_RULES]
    assert len(set(names)) == len(names)


@rule("index")
def unsound(x: Expr, y: Expr, c: Const) -> Rewrite:
    return (x * c + y) // c, x, c > 0


def test_an_unsound_rule_is_refuted():
    source = Random(0)
    cases = [unsound.draw(source) for _ in range(50)]
    assert not all(same(evaluate(c.pattern, c.env), evaluate(c.result, c.env)) for c in cases)
    assert all(evaluate(unsound.condition, c.env) for c in cases)


def test_a_constant_of_a_pattern_matches_only_constants():
    x, y, c = Var("a"), Var("b"), Const(4, i64)
    traced = unsound.at(i64)
    matched = (x * c + y) // c
    assert isinstance(matched, Apply)
    assert traced.match(matched) == dict(zip(traced.variables, (x, y, c), strict=True))
    other = (x * y + y) // y
    assert isinstance(other, Apply)
    assert traced.match(other) is None


def test_operands_of_commuting_functions_match_in_either_order():
    x, y, c = Var("a"), Var("b"), Const(4, i64)
    swapped = (y + c * x) // c
    assert isinstance(swapped, Apply)
    assert unsound.at(i64).match(swapped) is not None


def test_rules_of_floats_leave_integers_alone():
    for r in ALL_RULES:
        assert r.applies_to(f32) == (f32 in ON[r.on])
        assert all(r.applies_to(t) for t in ON[r.on])
        assert r.on.endswith(" vector") or not any(
            r.applies_to(t) for t in DTYPES if t not in ON[r.on]
        )
