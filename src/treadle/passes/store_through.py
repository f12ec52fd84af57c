"""Let a block that stores several elements at each point store what an elementwise block makes of
them.

``T[2 * i] = a; T[2 * i + 1] = b`` and then ``Y[j] = f(T[j])`` become ``Y[2 * i] = f(a); Y[2 * i +
1] = f(b)``: what stands between them is not stored. Every element of the temporary is written
before it is read, so each result is stored too, and last by what wrote its element last.
"""

from treadle.base.rewrite import replace_fields
from treadle.expr.scalar import Expr, Var, substitute, transform
from treadle.ir.analysis import blocks, loads, statements
from treadle.ir.tensor import (
    Allocate,
    Block,
    Buffer,
    For,
    If,
    Let,
    Load,
    Stmt,
    Store,
    TensorFunction,
)
from treadle.passes.kinds import place_of_units
from treadle.passes.statements import Body, with_body


def stores_tiles(function: TensorFunction) -> bool:
    """Whether a function is one block that stores several elements of the result at each point."""
    found = blocks(function)
    return function.outputs == 1 and len(found) == 1 and _target(found[0]) is not None


def store_through(function: TensorFunction) -> TensorFunction:
    """The function with such pairs of blocks as one, as far as there are any."""
    for name in [b.name for b in blocks(function) if _target(b) is not None]:
        place = next(b for b in blocks(function) if b.name == name)
        user = _only_user(function, place)
        while user is not None:
            place, function = _joined(function, place, user)
            user = _only_user(function, place)
    return function


def _target(block: Block) -> Buffer | None:
    """The buffer that a block without a reduction stores more than one element of at each point, if
    it stores nothing else and does not read it.
    """
    body = tuple(statements(block.body))
    stores = [s for s in body if isinstance(s, Store)]
    plain = all(isinstance(s, Let | If) or (isinstance(s, Store) and s.mask is None) for s in body)
    if len(stores) < 2 or not plain or block.init or block.where is not None:
        return None
    if len({s.buffer for s in stores}) > 1 or any(i.kind != "spatial" for i in block.iters):
        return None
    target = stores[0].buffer
    return None if target in _read(block) else target


def _read(block: Block) -> set[Buffer]:
    found: set[Buffer] = set()
    for s in statements((*block.init, *block.body)):
        values = (s.value,) if isinstance(s, Store | Let) else ()
        found.update(x.buffer for x in loads(*values))
    return found


def _only_user(function: TensorFunction, block: Block) -> Block | None:
    """The block that alone reads what ``block`` stores, if it does so element by element, and all
    else that it reads is there when ``block`` runs.
    """
    target, order = _target(block), list(blocks(function))
    users = [b for b in order if b is not block and target in _read(b)]
    if target is None or target in function.buffers or len(users) != 1:
        return None
    (user,) = users
    store = _plain_store(user)
    if store is None or _element(user, store, target) is None:
        return None
    ready = {b for b in function.input_buffers}
    for earlier in order[: order.index(block)]:
        ready.update(s.buffer for s in statements(earlier.body) if isinstance(s, Store))
    whole = tuple(i.extent for i in user.iters) == target.shape
    return user if whole and _read(user) <= {*ready, target} else None


def _element(user: Block, store: Store, target: Buffer) -> Load | None:
    """The one element of ``target`` that a store reads, if that is the one at its axes."""
    found = {x for x in loads(store.value) if x.buffer is target}
    own = place_of_units(user, store.indices)
    element = next(iter(found))
    same = len(found) == 1 and place_of_units(user, element.indices) == own
    return element if same and element.mask is None else None


def _plain_store(block: Block) -> Store | None:
    """The store of a block that computes each element of its result at its axes."""
    if len(block.body) != 1 or block.init or block.where is not None:
        return None
    (store,), axes = block.body, tuple(i.var for i in block.iters)
    if not isinstance(store, Store) or store.mask is not None or store.indices != axes:
        return None
    return store if all(i.kind == "spatial" for i in block.iters) else None


def _joined(function: TensorFunction, block: Block, user: Block) -> tuple[Block, TensorFunction]:
    """The first block, storing what the second makes of its elements, and the function with it in
    the place of both.
    """
    store, target = _plain_store(user), _target(block)
    assert store is not None
    assert target is not None
    element = _element(user, store, target)
    assert element is not None
    joined = replace_fields(block, name=user.name, body=_through(block.body, store, element))
    kept: list[Stmt] = []
    declared: list[Stmt] = []
    for s in function.body:
        inside = [x for x in statements((s,)) if isinstance(x, Block)]
        if isinstance(s, Allocate):
            declared += () if s.buffer is target else (s,)
        elif any(x is block for x in inside):
            kept.append(_exchanged(s, block, joined))
        elif not any(x is user for x in inside):
            kept.append(s)
    return joined, with_body(function, (*declared, *kept))


def _through(body: Body, store: Store, element: Load) -> Body:
    """The statements, storing what ``store`` makes of an element instead of the element."""
    result: list[Stmt] = []
    for s in body:
        if isinstance(s, If):
            inner, orelse = (_through(x, store, element) for x in (s.body, s.orelse))
            s = replace_fields(s, body=inner, orelse=orelse)
        elif isinstance(s, Store):
            axes = [a for a in store.indices if isinstance(a, Var)]
            point: dict[Var, Expr] = dict(zip(axes, s.indices, strict=True))
            value = substitute(_made(store.value, element, s.value), point)
            s = Store(store.buffer, s.indices, value, None, store.span)
        result.append(s)
    return tuple(result)


def _made(value: Expr, element: Load, made: Expr) -> Expr:
    """``value`` with an element that was ``made`` just now."""
    return transform(value, lambda x: made if x is element else None)


def _exchanged(s: Stmt, old: Block, new: Block) -> Stmt:
    """A nest of loops with one block exchanged."""
    if isinstance(s, For):
        return replace_fields(s, body=tuple(_exchanged(x, old, new) for x in s.body))
    return new if s is old else s
