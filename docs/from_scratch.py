"""The compiler again, in one file that runs: ``python docs/from_scratch.py``.

This is the idea of Treadle with everything else left out. It has five parts, and each stands for a
room of the real one:

1. expressions        ``x * 2 + y[i]`` as objects               treadle.expr
2. loop programs      loops and stores over buffers, as text    treadle.ir
3. one schedule       split, reorder, vectorize, unroll         treadle.schedule
4. machine code       LLVM's text, one statement at a time      treadle.codegen.llvm
5. running it         link, and call with NumPy's pointers      treadle_runtime

At the end, a matrix product is written as three plain loops, interpreted, scheduled into a register
tile of vectors, compiled, and compared: the same numbers, in a small part of the time.
"""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import llvmlite.binding as llvm
import numpy as np

# ---- 1. Expressions ---------------------------------------------------------------------------
#
# An expression is a constant, a variable, an operation on two expressions, or an element of a
# buffer. Python's operators build them, so that programs look like what they mean.


class Expr:
    """A scalar: an index (an integer) or an element (a float)."""

    def __add__(self, other: Expr | int) -> Expr:
        return binary("+", self, as_expr(other))

    def __mul__(self, other: Expr | int) -> Expr:
        return binary("*", self, as_expr(other))


@dataclass(frozen=True)
class Const(Expr):
    """A number."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Var(Expr):
    """The variable of a loop."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Binary(Expr):
    """``a + b`` or ``a * b``."""

    op: str
    a: Expr
    b: Expr

    def __str__(self) -> str:
        text = f"{self.a} {self.op} {self.b}"
        return f"({text})" if self.op == "+" else text


@dataclass(frozen=True)
class Buffer:
    """A matrix of floats: a parameter, or a register tile that lives in the function."""

    name: str
    rows: int
    columns: int

    def __getitem__(self, at: tuple[Expr, Expr]) -> Load:
        return Load(self, *at)


@dataclass(frozen=True)
class Load(Expr):
    """An element of a buffer. Indices are themselves expressions."""

    buffer: Buffer
    row: Expr
    column: Expr

    def __str__(self) -> str:
        return f"{self.buffer.name}[{self.row}, {self.column}]"


def as_expr(x: Expr | int) -> Expr:
    """A number as an expression."""
    return Const(x) if isinstance(x, int) else x


def binary(op: str, a: Expr, b: Expr) -> Expr:
    """Build ``a op b``, simplified as far as four rules go.

    The real simplifier has a book of rules, and each is tried on generated values by the tests.
    """
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.value + b.value if op == "+" else a.value * b.value)
    zero, one = Const(0), Const(1)
    if op == "+" and (a == zero or b == zero):
        return b if a == zero else a
    if op == "*" and (a == one or b == one):
        return b if a == one else a
    if op == "*" and (a == zero or b == zero):
        return zero
    return Binary(op, a, b)


def substitute(e: Expr, values: Mapping[str, Expr]) -> Expr:
    """The expression with variables exchanged. Rebuilding simplifies."""
    match e:
        case Var(name):
            return values.get(name, e)
        case Binary(op, a, b):
            return binary(op, substitute(a, values), substitute(b, values))
        case Load(buffer, row, column):
            return Load(buffer, substitute(row, values), substitute(column, values))
        case _:
            return e


# ---- 2. Loop programs -------------------------------------------------------------------------
#
# Statements are loops and stores. Nodes never change: a transformation makes a new program. Every
# program prints as Python, which is how one sees what a schedule did.


@dataclass(frozen=True)
class For:
    """Run ``body`` for ``var`` from 0 to ``extent`` - 1."""

    var: str
    extent: int
    body: tuple[Stmt, ...]
    kind: str = "range"  # or "vectorized", "unrolled"


@dataclass(frozen=True)
class Store:
    """``buffer[row, column] = value``."""

    buffer: Buffer
    row: Expr
    column: Expr
    value: Expr


Stmt = For | Store


@dataclass(frozen=True)
class Function:
    """A loop program over its parameters; ``local`` buffers are its own, and start as zeros."""

    name: str
    params: tuple[Buffer, ...]
    body: tuple[Stmt, ...]
    local: tuple[Buffer, ...] = ()

    def __str__(self) -> str:
        head = f"def {self.name}({', '.join(b.name for b in self.params)}):"
        tiles = [f"    {b.name} = zeros({b.rows}, {b.columns})" for b in self.local]
        return "\n".join([head, *tiles, *lines(self.body, "    ")])


def lines(body: tuple[Stmt, ...], indent: str) -> Iterator[str]:
    """Statements as Python, one per line."""
    for s in body:
        if isinstance(s, For):
            yield f"{indent}for {s.var} in {s.kind}({s.extent}):"
            yield from lines(s.body, indent + "    ")
        else:
            yield f"{indent}{s.buffer.name}[{s.row}, {s.column}] = {s.value}"


def interpret(function: Function, arrays: Mapping[str, np.ndarray]) -> None:
    """Run a program slowly: this is what it means, whatever its loops are called."""
    memory = dict(arrays)
    memory.update({b.name: np.zeros((b.rows, b.columns), np.float32) for b in function.local})

    def value(e: Expr, at: dict[str, int]) -> float:
        match e:
            case Const(number):
                return number
            case Var(name):
                return at[name]
            case Binary(op, a, b):
                x, y = value(a, at), value(b, at)
                return x + y if op == "+" else x * y
            case Load(buffer, row, column):
                return memory[buffer.name][value(row, at), value(column, at)]
        raise TypeError(e)

    def run(body: tuple[Stmt, ...], at: dict[str, int]) -> None:
        for s in body:
            if isinstance(s, For):
                for step in range(s.extent):
                    run(s.body, {**at, s.var: step})
            else:
                memory[s.buffer.name][value(s.row, at), value(s.column, at)] = value(s.value, at)

    run(function.body, {})


# ---- 3. A schedule ----------------------------------------------------------------------------
#
# Each instruction takes a function and returns another one that computes the same. The real ones
# check this and refuse otherwise; here, only what this one schedule needs is checked.


Edit = Callable[[For], tuple["Stmt", ...]]


def change(body: tuple[Stmt, ...], name: str, edit: Edit) -> tuple[Stmt, ...]:
    """Replace every loop called ``name`` by statements."""
    changed: list[Stmt] = []
    for s in body:
        if isinstance(s, For) and s.var == name:
            changed.extend(edit(s))
        elif isinstance(s, For):
            changed.append(replace(s, body=change(s.body, name, edit)))
        else:
            changed.append(s)
    return tuple(changed)


def map_exprs(body: tuple[Stmt, ...], values: Mapping[str, Expr]) -> tuple[Stmt, ...]:
    """Statements with variables exchanged."""
    changed: list[Stmt] = []
    for s in body:
        if isinstance(s, For):
            changed.append(replace(s, body=map_exprs(s.body, values)))
        else:
            row, column, value = (substitute(e, values) for e in (s.row, s.column, s.value))
            changed.append(Store(s.buffer, row, column, value))
    return tuple(changed)


def split(function: Function, name: str, factor: int) -> Function:
    """``i`` becomes ``i_0 * factor + i_1``; the extent must be a multiple of the factor."""

    def edit(loop: For) -> tuple[Stmt, ...]:
        if loop.extent % factor:
            raise ValueError(f"split: {factor} does not divide the extent of '{name}'")
        outer, inner = f"{name}_0", f"{name}_1"
        body = map_exprs(loop.body, {name: Var(outer) * factor + Var(inner)})
        return (For(outer, loop.extent // factor, (For(inner, factor, body),)),)

    return replace(function, body=change(function.body, name, edit))


def reorder(function: Function, *names: str) -> Function:
    """Put the loops of a nest in this order; loops must follow each other directly."""
    chain = [s for s in walk_loops(function.body) if s.var in names]
    (innermost,) = chain[-1].body
    outside = [x for x, y in itertools.pairwise(chain) if x.body != (y,)]
    if isinstance(innermost, For) or outside:
        raise ValueError(f"reorder: {', '.join(names)} are not all of one nest")
    stmt: Stmt = innermost
    for name in reversed(names):
        (loop,) = (x for x in chain if x.var == name)
        stmt = replace(loop, body=(stmt,))
    return replace(function, body=change(function.body, chain[0].var, lambda _: (stmt,)))


def mark(function: Function, name: str, kind: str) -> Function:
    """Make loops "vectorized" or "unrolled"."""
    return replace(function, body=change(function.body, name, lambda x: (replace(x, kind=kind),)))


def cache_write(function: Function, name: str, rows: str, columns: str) -> Function:
    """Let the loop ``name`` sum into a tile of the function's own, and add that to memory after it.

    ``rows`` and ``columns`` are the inner loops that walk the tile. A sum in registers needs no
    memory.
    """
    (loop,) = (x for x in walk_loops(function.body) if x.var == name)
    size = {x.var: x.extent for x in walk_loops((loop,))}
    (store,) = stores(loop.body)
    memory = store.buffer[store.row, store.column]
    if not isinstance(store.value, Binary) or store.value.op != "+" or store.value.a != memory:
        raise ValueError("cache_write: the store is no sum")
    tile = Buffer(f"{store.buffer.name}_tile", size[rows], size[columns])
    i, j = Var(rows), Var(columns)

    def over_tile(stmt: Stmt) -> For:
        return For(rows, size[rows], (For(columns, size[columns], (stmt,)),))

    steps = (
        over_tile(Store(tile, i, j, Const(0))),
        replace(loop, body=(over_tile(Store(tile, i, j, Binary("+", tile[i, j], store.value.b))),)),
        over_tile(Store(store.buffer, store.row, store.column, Binary("+", memory, tile[i, j]))),
    )
    body = change(function.body, name, lambda _: steps)
    return replace(function, body=body, local=(*function.local, tile))


def walk_loops(body: tuple[Stmt, ...]) -> Iterator[For]:
    """All loops, outermost first."""
    for s in body:
        if isinstance(s, For):
            yield s
            yield from walk_loops(s.body)


def stores(body: tuple[Stmt, ...]) -> Iterator[Store]:
    """All stores, from top to bottom."""
    for s in body:
        if isinstance(s, For):
            yield from stores(s.body)
        else:
            yield s


# ---- 4. Machine code --------------------------------------------------------------------------
#
# LLVM allocates registers and chooses instructions, and is not asked for more: vectors and unrolled
# bodies are spelled out here. A tile whose indices are all constants becomes one value per element.


class Emitter:
    """The text of one LLVM function."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.out: list[str] = []
        self.numbers = itertools.count()
        self.lanes = 1
        self.vector_loop = ""

    def new(self, text: str) -> str:
        """Emit an instruction; its name."""
        name = f"%v{next(self.numbers)}"
        self.out.append(f"  {name} = {text}")
        return name

    def text(self) -> str:
        """The function."""
        params = ", ".join(f"ptr noalias %{b.name}" for b in self.function.params)
        self.out.append(f"define void @{self.function.name}({params}) {{\nentry:")
        for b in self.function.local:
            self.out.append(f"  %{b.name} = alloca [{b.rows * b.columns} x float], align 64")
        self.body(self.function.body, {})
        self.out.append("  ret void\n}")
        return "\n".join(self.out)

    def body(self, body: tuple[Stmt, ...], at: dict[str, str | int]) -> None:
        for s in body:
            if isinstance(s, Store):
                self.store(s, at)
            elif s.kind == "unrolled" or s.extent == 1:
                for step in range(s.extent):
                    self.body(s.body, {**at, s.var: step})
            elif s.kind == "vectorized":
                self.lanes, self.vector_loop = s.extent, s.var
                self.body(s.body, {**at, s.var: 0})
                self.lanes, self.vector_loop = 1, ""
            else:
                self.loop(s, at)

    def loop(self, s: For, at: dict[str, str | int]) -> None:
        """A counted loop: a phi for the variable, the body, the next step."""
        label = f"{s.var}{next(self.numbers)}"
        before = f"{label}.before"
        var, following = f"%{label}.i", f"%{label}.n"
        self.out.append(f"  br label %{before}\n{before}:\n  br label %{label}\n{label}:")
        self.out.append(f"  {var} = phi i64 [ 0, %{before} ], [ {following}, %{label}.end ]")
        self.body(s.body, {**at, s.var: var})
        self.out.append(f"  br label %{label}.end\n{label}.end:")
        self.out.append(f"  {following} = add i64 {var}, 1")
        done = self.new(f"icmp eq i64 {following}, {s.extent}")
        self.out.append(f"  br i1 {done}, label %{label}.exit, label %{label}\n{label}.exit:")

    @property
    def kind(self) -> str:
        """The type of elements here: one float, or a vector of them."""
        return "float" if self.lanes == 1 else f"<{self.lanes} x float>"

    def index(self, e: Expr, at: dict[str, str | int]) -> str | int:
        """An index: a number where everything in it is known, else a register."""
        match e:
            case Const(value):
                return value
            case Var(name):
                return at[name]
            case Binary(op, a, b):
                x, y = self.index(a, at), self.index(b, at)
                if isinstance(x, int) and isinstance(y, int):
                    return x + y if op == "+" else x * y
                if (op == "+" and 0 in (x, y)) or (op == "*" and 1 in (x, y)):
                    return y if x in (0, 1) and isinstance(x, int) else x
                return self.new(f"{'add' if op == '+' else 'mul'} i64 {x}, {y}")
        raise TypeError(e)

    def address(self, buffer: Buffer, row: Expr, column: Expr, at: dict[str, str | int]) -> str:
        flat = self.index(row * buffer.columns + column, at)
        return self.new(f"getelementptr float, ptr %{buffer.name}, i64 {flat}")

    def moves(self, e: Expr) -> bool:
        """Whether an expression depends on the lane."""
        match e:
            case Var(name):
                return name == self.vector_loop
            case Binary(_, a, b):
                return self.moves(a) or self.moves(b)
            case Load(_, row, column):
                return self.moves(row) or self.moves(column)
        return False

    def value(self, e: Expr, at: dict[str, str | int]) -> str:
        match e:
            case Const(_):
                return "zeroinitializer" if self.lanes > 1 else "0.0"
            case Load(buffer, row, column):
                pointer = self.address(buffer, row, column, at)
                if self.lanes == 1 or self.moves(column):
                    return self.new(f"load {self.kind}, ptr {pointer}, align 4")
                return self.splat(self.new(f"load float, ptr {pointer}, align 4"))
            case Binary("+", a, Binary("*", b, c)):
                x, y, z = (self.value(part, at) for part in (b, c, a))
                width = "f32" if self.lanes == 1 else f"v{self.lanes}f32"
                kind = self.kind
                call = f"call {kind} @llvm.fmuladd.{width}({kind} {x}, {kind} {y}, {kind} {z})"
                return self.new(call)
            case Binary(op, a, b):
                x, y = self.value(a, at), self.value(b, at)
                return self.new(f"{'fadd' if op == '+' else 'fmul'} {self.kind} {x}, {y}")
        raise TypeError(e)

    def splat(self, scalar: str) -> str:
        """One float in every lane."""
        kind = self.kind
        first = self.new(f"insertelement {kind} poison, float {scalar}, i64 0")
        mask = f"<{self.lanes} x i32> zeroinitializer"
        return self.new(f"shufflevector {kind} {first}, {kind} poison, {mask}")

    def store(self, s: Store, at: dict[str, str | int]) -> None:
        value = self.value(s.value, at)
        pointer = self.address(s.buffer, s.row, s.column, at)
        self.out.append(f"  store {self.kind} {value}, ptr {pointer}, align 4")


# ---- 5. Running it ----------------------------------------------------------------------------


def compile_function(function: Function) -> Callable[..., None]:
    """Machine code for this CPU, as a function of NumPy arrays."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(Emitter(function).text())
    module.verify()
    features = llvm.get_host_cpu_features().flatten()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=2
    )
    # One pass, so that the elements of the tile become registers. All else is as written.
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    for f in module.functions:
        passes.run(f, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    address = engine.get_function_address(function.name)
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(function.params))(address)

    def call(*arrays: np.ndarray) -> None:
        native(*(a.ctypes.data for a in arrays))

    call.engine = engine  # type: ignore[attr-defined]  (keeps the code in memory)
    return call


# ---- A matrix product, from plain loops to a register tile ------------------------------------


def matmul(size: int) -> Function:
    """C += A @ B, as one would write it down."""
    a, b, c = (Buffer(name, size, size) for name in "ABC")
    i, j, k = Var("i"), Var("j"), Var("k")
    total = Binary("+", c[i, j], a[i, k] * b[k, j])
    inner = For("k", size, (Store(c, i, j, total),))
    return Function("matmul", (a, b, c), (For("i", size, (For("j", size, (inner,)),)),))


def schedule(function: Function, rows: int = 4, vectors: int = 2, lanes: int = 8) -> Function:
    """A tile of ``rows`` by ``vectors * lanes`` elements, summed in registers over all of ``k``."""
    f = split(function, "i", rows)
    f = split(f, "j", vectors * lanes)
    f = reorder(f, "i_0", "j_0", "k", "i_1", "j_1")
    f = cache_write(f, "k", "i_1", "j_1")
    f = split(f, "j_1", lanes)
    f = mark(f, "i_1", "unrolled")
    f = mark(f, "j_1_0", "unrolled")
    return mark(f, "j_1_1", "vectorized")


def time_of(call: Callable[[], object]) -> float:
    """The shortest of a few calls, in seconds."""
    times: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def main(size: int = 256) -> float:
    """Show the way, check the numbers, and return how many times faster the schedule is."""
    plain = matmul(size)
    fast = schedule(plain)
    print(plain, "\n\nbecomes\n", fast, sep="\n")

    small, rng = schedule(matmul(16)), np.random.default_rng(0)
    a, b = rng.standard_normal((2, 16, 16)).astype(np.float32)
    c = np.zeros((16, 16), np.float32)
    interpret(small, {"A": a, "B": b, "C": c})
    np.testing.assert_allclose(c, a @ b, rtol=1e-4, atol=1e-4)

    a, b = rng.standard_normal((2, size, size)).astype(np.float32)
    seconds: list[float] = []
    for function in (plain, fast):
        run, c = compile_function(function), np.zeros((size, size), np.float32)
        run(a, b, c)
        np.testing.assert_allclose(c, a @ b, rtol=1e-3, atol=1e-3)
        seconds.append(time_of(lambda run=run, c=c: run(a, b, c)))
    ratio = seconds[0] / seconds[1]
    print(f"\nplain loops: {2 * size**3 / seconds[0] / 1e9:.1f} GFLOP/s")
    print(f"scheduled:   {2 * size**3 / seconds[1] / 1e9:.1f} GFLOP/s, {ratio:.0f} times faster")
    return ratio


if __name__ == "__main__":
    main()
