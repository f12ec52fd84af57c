"""How fast scalar expressions are built, found again, simplified and reasoned about.

Run ``python benchmarks/expressions.py``; each line is the best of several runs, in microseconds per
expression.
"""

from collections.abc import Callable
from time import perf_counter

from treadle.expr.bounds import Facts, prove
from treadle.expr.dtype import f32
from treadle.expr.scalar import Expr, Var, apply, ceildiv
from treadle.expr.simplify import simplifier, simplify

_COUNT = 2000
_RUNS = 7


def best(run: Callable[[], object], count: int = _COUNT) -> float:
    """Microseconds per item of the fastest of several runs."""
    times: list[float] = []
    for _ in range(_RUNS):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return min(times) / count * 1e6


def build_new() -> list[Expr]:
    """Applications that did not exist before; their operands did."""
    return [apply("add", x, _Y) for x in _LEAVES]


def find_again() -> None:
    """Applications that exist already."""
    for x in _LEAVES:
        apply("add", x, _X)


def build_with_number() -> list[Expr]:
    """New applications of which one operand is a Python number."""
    return [x * 3 for x in _LEAVES]


def simplify_indices() -> None:
    """The indices that a split, a fusion and a tail leave behind."""
    facts = Facts.of([], {_I: _N, _J: _M})
    engine = simplifier(facts)
    for k in range(100):
        engine.simplify(((_I * _M + _J) // _M) * (k + 1) + (_I * _M + _J) % _M)


def simplify_floats() -> None:
    """The body of an activation, for which the rules are searched in vain."""
    for k in range(100):
        a = Var(f"a{k}", f32)
        simplify(a * apply("sigmoid", a) + apply("max", a, 0.0) / 3.0)


def prove_tails() -> None:
    """Claims about loops with symbolic extents."""
    for k in range(1, 101):
        facts = Facts.of([], {_I: _N // k, _J: k})
        if not prove(_I * k + _J < _N, facts) or not prove(ceildiv(_N, k) * k >= _N, facts):
            raise AssertionError(k)


_X, _Y = Var("x"), Var("y")
_I, _J, _N, _M = Var("i"), Var("j"), Var("n"), Var("m")
_LEAVES = [Var(f"v{k}") for k in range(_COUNT)]


def main() -> None:
    """Print one line per measurement."""
    kept = [apply("add", x, _X) for x in _LEAVES]
    print(f"build, new         {best(build_new):8.2f} µs")
    print(f"build, known       {best(find_again):8.2f} µs")
    print(f"build, with number {best(build_with_number):8.2f} µs")
    print(f"simplify indices   {best(simplify_indices, 100):8.2f} µs")
    print(f"simplify floats    {best(simplify_floats, 100):8.2f} µs")
    print(f"prove tails        {best(prove_tails, 200):8.2f} µs")
    del kept


if __name__ == "__main__":
    main()
