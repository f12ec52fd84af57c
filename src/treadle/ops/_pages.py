"""The loops of attention over pages.

Some neighbouring tokens go together where they belong to one sequence, as in a prompt; else each
goes alone. They take one page after another and keep, for each of their rows (a token and a head of
queries), the largest score so far, the weights that were added up in units of its exponential, and
the values that were added by these weights (Milakov and Gimelshein, "Online normalizer calculation
for softmax", arXiv 1805.02867). The unit stays as long as no score is much larger, since weights
somewhat above one are as exact: then nothing that was added up has to be scaled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from treadle.expr.dtype import DType, boolean, i64
from treadle.expr.scalar import (
    Const,
    Expr,
    Var,
    apply,
    cast,
    const,
    eq,
    int_value,
    maximum,
    minimum,
    select,
)
from treadle.expr.simplify import simplify
from treadle.ir.loop_builder import LoopBuilder, clamp
from treadle.ir.tensor import Allocate, Buffer, For, If, Let, Stmt, Store
from treadle.ops._positions import from_front
from treadle.ops._shapes import wide
from treadle.ops._window import all_of

Body = tuple[Stmt, ...]

_ROWS = 8
"""Rows that tokens of one sequence have together, if a token has no more by itself."""
_MOST_ROWS = 16
"""Rows of a single token: as many as registers hold."""
_SUMS = 256
"""Values of all rows that are added up at a time: as many as registers hold."""
_WIDEST = 64
"""Values of one row that are added up at a time."""
_APART = 4
"""Sums that a score of a single row is added up in: one addition need not wait for the other."""
_MARGIN = 8.0
"""How far a score may lie above the one whose exponential is the unit of weights."""
_LOWEST = {16: -3.0e38, 32: -3.0e38, 64: -1.7e308}
"""Lower than any score: what is not seen has no weight beside it."""


@dataclass(frozen=True, slots=True)
class PageSizes:
    """The known dimensions: heads of keys, query heads that share one, width of keys, width of
    values, places of a page.
    """

    shared: int
    group: int
    width: int
    result: int
    places: int


@dataclass(frozen=True, slots=True)
class Scores:
    """What makes a score of a product, and how many keys back a token sees."""

    scale: float | None
    window: int | None
    softcap: float | None


def attend(
    f: LoopBuilder,
    scores: Scores,
    sizes: PageSizes,
    inputs: list[Buffer],
    y: Buffer,
    together: int = 1,
) -> None:
    """Write the loops of attention: of tiles of tokens and heads of keys, each by itself; if very
    many heads of queries share one of keys, of so many parts of those. A token that goes alone
    takes ``together`` heads of keys, a divisor of their number, past the pages.
    """
    group = _divisor(sizes.group, _MOST_ROWS)
    parts = sizes.group // group
    sizes = replace(sizes, group=group)
    several = max(1, _ROWS // sizes.group)
    tile = _Walk(f, scores, sizes, inputs, y, several, parts)
    alone = replace(tile, tokens=1, heads=together * parts)
    sequences, count = inputs[4], y.shape[0]

    def by_first(head: Var, body: Body) -> Body:
        """What the first of the heads that go together does for all."""
        return body if alone.heads == 1 else (If(eq(head % alone.heads, 0), body),)

    def walk(head: Var, number: Var) -> Body:
        if several == 1:
            body = by_first(head, alone.statements(number, head))
            # Many tokens find the keys of one head near, not those of all.
            many = () if alone.heads == 1 else tile.statements(number, head)
            return (If(count < _ROWS, body, many),) if many else body
        first, step = number * several, f.variable()
        last = count - 1
        same = [
            eq(sequences[minimum(first + k, last)], sequences[first]) for k in range(1, several)
        ]
        whole = Var(f.variable().name, boolean)
        each = For(step, minimum(several, count - first), alone.statements(first + step, head))
        return (
            Let(whole, all_of([first + several <= count, *same])),
            If(whole, tile.statements(first, head), by_first(head, (each,))),
        )

    tiles = simplify((count + (several - 1)) // several)
    # Heads come first: their keys stay near from one tile to the next, and threads that share heads
    # have as much to do as each other, however the lengths differ.
    f.block("attend", (const(sizes.shared * parts), tiles), walk)


@dataclass(frozen=True)
class _Walk:
    """Takes ``tokens`` neighbouring tokens of one sequence past its pages, with one of the
    ``parts`` groups of queries' heads that share a head of keys, or with ``heads`` such groups.
    """

    f: LoopBuilder
    scores: Scores
    sizes: PageSizes
    inputs: list[Buffer]
    y: Buffer
    tokens: int
    parts: int
    heads: int = 1

    @property
    def dtype(self) -> DType:
        """What is computed in."""
        return wide(self.y.dtype)

    @property
    def rows(self) -> int:
        """Rows of scores: one for each token and head of queries."""
        return self.tokens * self.sizes.group

    def statements(self, first: Expr, head: Var) -> Body:
        """All pages for the tokens from ``first`` on and the heads from ``head`` on."""
        heads, rows, sizes = self.heads, self.rows, self.sizes
        table, sequences, positions = self.inputs[3:6]
        places = self.buffer("places", self.tokens, dtype=i64)
        top, total = (
            self.buffer("top", heads, rows),
            self.buffer("total", heads, rows, sizes.places),
        )
        added, whole = self.buffer("added", heads, rows, sizes.result), self.buffer("whole", rows)
        number, row = self.f.variable(), self.f.variable()
        page = _Page(self, first, head, const(0), number, places, top, total, added)
        lowest, zero = (Const(x, self.dtype) for x in (_LOWEST[self.dtype.bits], 0))

        def start(h: Expr) -> Body:
            return (
                self.each((rows,), lambda r: Store(top, (h, r), lowest)),
                self.each((rows, sizes.places), lambda r, o: Store(total, (h, r, o), zero)),
                self.each(
                    (rows, *self.panels), lambda r, p, e: Store(added, (h, r, self.at(p, e)), zero)
                ),
            )

        def finish(h: Expr) -> Body:
            def share(r: Var, part: Var, i: Var) -> Stmt:
                e = self.at(part, i)
                unit = select(eq(whole[r], 0), Const(1, self.dtype), whole[r])
                token, at = self.row(first, simplify(head + h), r)
                return Store(self.y, (token, at, e), cast(added[h, r, e] / unit, self.y.dtype))

            return (
                self.each((rows,), lambda r: Store(whole, (r,), zero)),
                self.each(
                    (rows, sizes.places), lambda r, o: Store(whole, (r,), whole[r] + total[h, r, o])
                ),
                self.each((rows, *self.panels), share),
            )

        return (
            *(Allocate(b) for b in (places, top, total, added, whole)),
            self.each(
                (self.tokens,), lambda i: Store(places, (i,), cast(positions[first + i], i64))
            ),
            Let(row, clamp(from_front(sequences[first], table.shape[0]), 0, table.shape[0] - 1)),
            *self.each_head(start),
            *page.limits(),
            For(number, table.shape[1], (If(page.is_seen(), page.statements(row)),)),
            *self.each_head(finish),
        )

    def each_head(self, body: Callable[[Expr], Body]) -> Body:
        """Statements for each of the heads."""
        if self.heads == 1:
            return body(const(0))
        head = self.f.variable()
        return (For(head, const(self.heads), body(head)),)

    @property
    def panels(self) -> tuple[int, int]:
        """How many panels the values of a key are, and how many values are one."""
        panel = _divisor(self.sizes.result, min(_WIDEST, _SUMS // self.rows))
        return self.sizes.result // panel, panel

    @property
    def sums(self) -> int:
        """In how many sums the products of a score are added up."""
        return _divisor(self.sizes.width, max(1, _APART // self.rows))

    def at(self, part: Expr, i: Expr) -> Expr:
        """Which value of a key is the one at a place of a panel."""
        return simplify(part * self.panels[1] + i)

    def row(self, first: Expr, head: Expr, r: Expr) -> tuple[Expr, Expr]:
        """The token and the head of queries that a row is."""
        group = self.sizes.group
        return simplify(first + r // group), simplify(head * group + r % group)

    def buffer(
        self, name: str, *shape: int, dtype: DType | None = None, registers: bool = False
    ) -> Buffer:
        """Memory of this walk."""
        scope = "register" if registers else "stack"
        suffix = "" if self.tokens == 1 else str(self.tokens)
        suffix += "" if self.heads == 1 else f"_{self.heads}"
        return Buffer(f"{name}{suffix}", shape, dtype or self.dtype, scope)

    def each(self, extents: tuple[int, ...], body: Callable[..., Stmt | Body]) -> Stmt:
        """Statements for every point of ``extents``."""
        loops = [self.f.variable() for _ in extents]
        found = body(*loops)
        inner = found if isinstance(found, tuple) else (found,)
        for var, extent in zip(reversed(loops), reversed(extents), strict=True):
            inner = (For(var, const(extent), inner),)
        return inner[0]


@dataclass(frozen=True)
class _Page:
    """What page ``number`` adds to the state of the rows of a walk: ``top`` is about the largest
    score so far, ``total`` and ``added`` the weights and the values by weight, in units of the
    exponential of ``top``. In the state ``head`` has the number ``own``.
    """

    walk: _Walk
    first: Expr
    head: Expr
    own: Expr
    number: Var
    places: Buffer
    top: Buffer
    total: Buffer
    added: Buffer

    @property
    def shared(self) -> Expr:
        """The head of keys."""
        return simplify(self.head // self.walk.parts)

    def limits(self) -> Body:
        """The last place of the tokens, and the first where a window ends."""
        known = [self.places[k] for k in range(self.walk.tokens)]
        found: Body = (Let(self.last, _folded(maximum, known)),)
        if self.walk.scores.window is not None:
            found = (*found, Let(self.earliest, _folded(minimum, known)))
        return found

    @property
    def last(self) -> Var:
        """The largest place of the tokens."""
        return Var(f"last{self.number.name}")

    @property
    def earliest(self) -> Var:
        """The least place of the tokens."""
        return Var(f"earliest{self.number.name}")

    def key(self, offset: Expr) -> Expr:
        """The number of the key at an offset of the page."""
        return self.number * self.walk.sizes.places + offset

    def is_seen(self) -> Expr:
        """Whether a token sees any key of the page, which there is."""
        seen = self.key(const(0)) <= self.last
        for known in (self.walk.inputs[1].shape[0], self.walk.inputs[3].shape[0]):
            seen = seen if int_value(known) else seen & (known > 0)
        if self.walk.scores.window is not None:
            seen = seen & (self.key(const(self.walk.sizes.places)) > self.begin())
        return seen

    def begin(self) -> Expr:
        """The first key that a token sees, where there is a window."""
        assert self.walk.scores.window is not None
        return self.earliest - (self.walk.scores.window - 1)

    def sees(self, r: Expr, offset: Expr) -> Expr:
        """Whether the token of a row sees the key at ``offset`` of the page."""
        place = self.places[simplify(r // self.walk.sizes.group)]
        seen, window = self.key(offset) <= place, self.walk.scores.window
        return seen if window is None else seen & (self.key(offset) > place - window)

    def statements(self, row: Var) -> Body:
        """What the page adds to the state of each head."""
        keys, table = self.walk.inputs[1], self.walk.inputs[3]
        named = clamp(from_front(table[row, self.number], keys.shape[0]), 0, keys.shape[0] - 1)
        page = self.walk.f.variable()

        def of_head(h: Expr) -> Body:
            return replace(self, head=simplify(self.head + h), own=h).terms(page)

        return (Let(page, named), *self.walk.each_head(of_head))

    def terms(self, page: Var) -> Body:
        """The scores of the page, the weights, the state with them."""
        w = self.walk
        points = (w.rows, w.sizes.places)
        top, total, h = self.top, self.total, self.own
        products = w.buffer("products", w.sums, *points, registers=True)
        weights = w.buffer("weights", *points)
        excess, most = w.buffer("excess", w.sizes.places), w.buffer("most", 1)
        never = Const(_LOWEST[w.dtype.bits], w.dtype)

        def score(r: Var, o: Var) -> Stmt:
            product = _folded(_add, [products[k, r, o] for k in range(w.sums)])
            seen = select(self.sees(r, o), self.scored(product, r, o), never)
            return Store(weights, (r, o), seen)

        def exceed(r: Var, o: Var) -> Stmt:
            return Store(excess, (o,), maximum(excess[o], weights[r, o] - top[h, r]))

        def weight(r: Var, o: Var) -> Stmt:
            power = apply("exp", weights[r, o] - top[h, r])
            seen = select(weights[r, o] <= never, Const(0, w.dtype), power)
            return Store(weights, (r, o), seen)

        return (
            *(Allocate(b) for b in (products, weights, excess, most)),
            w.each(
                (w.sums, *points), lambda k, r, o: Store(products, (k, r, o), Const(0, w.dtype))
            ),
            w.each(
                (w.sizes.width // w.sums, w.sizes.places, w.sums),
                lambda d, o, k: self.product(products, page, d, o, k),
            ),
            w.each(points, score),
            w.each((w.sizes.places,), lambda o: Store(excess, (o,), never)),
            w.each(points, exceed),
            Store(most, (const(0),), never),
            w.each(
                (w.sizes.places,), lambda o: Store(most, (const(0),), maximum(most[0], excess[o]))
            ),
            # A score that is no number concerns its own row only.
            If(~(most[0] <= Const(_MARGIN, w.dtype)), self.rise(weights)),
            w.each(points, weight),
            w.each(points, lambda r, o: Store(total, (h, r, o), total[h, r, o] + weights[r, o])),
            self.values(page, weights),
        )

    def rise(self, weights: Buffer) -> Body:
        """Let the unit of each row be the exponential of its largest score so far."""
        w = self.walk
        best, unit = w.buffer("best", w.rows), w.buffer("unit", w.rows)
        points = (w.rows, w.sizes.places)
        top, total, added, h = self.top, self.total, self.added, self.own

        def scale(r: Var, part: Var, e: Var) -> Stmt:
            place = w.at(part, e)
            return Store(added, (h, r, place), added[h, r, place] * unit[r])

        return (
            *(Allocate(b) for b in (best, unit)),
            w.each((w.rows,), lambda r: Store(best, (r,), top[h, r])),
            w.each(points, lambda r, o: Store(best, (r,), maximum(best[r], weights[r, o]))),
            w.each((w.rows,), lambda r: Store(unit, (r,), apply("exp", top[h, r] - best[r]))),
            w.each((w.rows,), lambda r: Store(top, (h, r), best[r])),
            w.each(points, lambda r, o: Store(total, (h, r, o), total[h, r, o] * unit[r])),
            w.each((w.rows, *w.panels), scale),
        )

    def product(self, products: Buffer, page: Var, step: Var, o: Var, k: Var) -> Body:
        """Add the products of the queries and one element of a key to their scores."""
        w = self.walk
        q, keys = w.inputs[:2]
        key, d = Var(f"k{w.f.variable().name}", w.dtype), simplify(step * w.sums + k)

        def add(r: Var) -> Stmt:
            a = cast(q[(*w.row(self.first, self.head, r), d)], w.dtype)
            return Store(products, (k, r, o), products[k, r, o] + a * key)

        return Let(key, cast(keys[page, self.shared, d, o], w.dtype)), w.each((w.rows,), add)

    def scored(self, product: Expr, r: Expr, o: Expr) -> Expr:
        """The score of a key that is seen, from the sum of products."""
        w, scores = self.walk, self.walk.scores
        scale = w.sizes.width**-0.5 if scores.scale is None else scores.scale
        score = product * Const(scale, w.dtype)
        if scores.softcap is not None:
            cap = Const(scores.softcap, w.dtype)
            score = cap * apply("tanh", score / cap)
        if len(w.inputs) > 6:
            slope = cast(w.inputs[6][w.row(self.first, self.head, r)[1]], w.dtype)
            place = self.places[simplify(r // w.sizes.group)]
            score = score + slope * cast(self.key(o) - place, w.dtype)
        return score

    def values(self, page: Var, weights: Buffer) -> Stmt:
        """Add the values by weight, a panel of each at a time, over the keys that a token sees."""
        w = self.walk
        parts, panel = w.panels
        added, h = self.added, self.own
        gain = w.buffer("gain", w.rows, panel, registers=True)
        part, o, e = (w.f.variable() for _ in range(3))
        value = Var(f"u{w.f.variable().name}", w.dtype)

        def add(r: Var) -> Stmt:
            return Store(gain, (r, e), gain[r, e] + weights[r, o] * value)

        def keep(r: Var, e: Var) -> Stmt:
            place = w.at(part, e)
            return Store(added, (h, r, place), added[h, r, place] + gain[r, e])

        loaded = Let(value, cast(w.inputs[2][page, self.shared, o, w.at(part, e)], w.dtype))
        terms: Body = (For(e, const(panel), (loaded, w.each((w.rows,), add))),)
        if w.scores.window is not None:
            terms = (If(self.key(o) >= self.begin(), terms),)
        seen = minimum(w.sizes.places, self.last + 1 - self.key(const(0)))
        body: Body = (
            Allocate(gain),
            w.each((w.rows, panel), lambda r, e: Store(gain, (r, e), Const(0, w.dtype))),
            For(o, seen, terms),
            w.each((w.rows, panel), keep),
        )
        return For(part, const(parts), body)


def _folded(combine: Callable[[Expr, Expr], Expr], xs: Sequence[Expr]) -> Expr:
    found: Expr = xs[0]
    for x in xs[1:]:
        found = combine(found, x)
    return found


def _add(a: Expr, b: Expr) -> Expr:
    return a + b


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is at most another."""
    return max((k for k in range(1, most + 1) if number % k == 0), default=1)
