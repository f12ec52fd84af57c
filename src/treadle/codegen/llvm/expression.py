"""Expressions as LLVM instructions, each at the outermost place where its variables are known.

Equal expressions are one object, so a value that was computed in an open scope is used again. What
reads memory stays in the statement that asks for it; what may be costly is not moved out of a
branch.
"""

from treadle.base.errors import InternalError
from treadle.codegen.llvm.arithmetic import elementwise
from treadle.codegen.llvm.convert import bitcast, cast
from treadle.codegen.llvm.division import divide_naturals
from treadle.codegen.llvm.dot import dot, maddubs
from treadle.codegen.llvm.load_store import load
from treadle.codegen.llvm.memory import Place, place_of, strides
from treadle.codegen.llvm.types import Operand, const_operand, is_half, memory_type
from treadle.codegen.llvm.vectors import VECTOR_FUNCTIONS, vector_function
from treadle.codegen.llvm.writer import Writer
from treadle.expr.bounds import Facts, interval
from treadle.expr.dtype import i64
from treadle.expr.functions import FUNCTIONS
from treadle.expr.scalar import Apply, Const, Expr, Var, int_value
from treadle.expr.terms import Poly, from_poly
from treadle.ir.tensor import Buffer, Load

_DIVISIONS = frozenset({"floordiv", "mod", "truncdiv", "truncmod"})
# The level of what reads memory: it stays where it is asked for.
_HERE = 1 << 30


class Evaluator:
    """Computes expressions into a writer; knows where variables and buffers live.

    ``facts`` are what holds wherever the variables are in scope (ranges of loops, not conditions of
    branches), for a value may be used again outside the branch that it was written for.
    """

    def __init__(self, writer: Writer, facts: Facts) -> None:
        self.writer = writer
        self.facts = facts
        self.pointers: dict[Buffer, tuple[Operand, int]] = {}
        self._variables: dict[Var, tuple[Operand, int]] = {}
        self._levels: dict[Expr, int] = {}
        self._costly: set[Expr] = set()
        self._strides: dict[Buffer, tuple[Poly, ...]] = {}
        self._places: dict[tuple[Buffer, tuple[Expr, ...]], Place] = {}
        self._statement: dict[Expr, Operand] = {}

    def define(self, var: Var, value: Operand, level: int) -> None:
        """Say what ``var`` is, and from which scope on."""
        if self._levels.get(var, level) != level:
            # Another loop had this name; what was said of expressions with it no longer holds.
            self._levels = {v: found[1] for v, found in self._variables.items()}
            self._costly.clear()
        self._variables[var] = value, level
        self._levels[var] = level

    def define_buffer(self, buffer: Buffer, pointer: Operand, level: int) -> None:
        """Say where ``buffer`` starts, and from which scope on."""
        self.pointers[buffer] = pointer, level

    def start_statement(self) -> None:
        """Forget the values that were read from memory."""
        self._statement.clear()

    def level(self, x: Expr) -> int:
        """The number of the outermost scope where ``x`` can be computed."""
        known = self._levels.get(x)
        if known is not None:
            return known
        stack = [x]
        while stack:
            top = stack[-1]
            if top in self._levels:
                stack.pop()
                continue
            missing = [c for c in top.children if c not in self._levels]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self._levels[top] = self._own_level(top)
        return self._levels[x]

    def _own_level(self, x: Expr) -> int:
        if _is_costly(x) or any(c in self._costly for c in x.children):
            self._costly.add(x)
        if isinstance(x, Load):
            return _HERE
        if isinstance(x, Var):
            raise InternalError(f"the variable {x.name} is used outside of its scope")
        return max((self._levels[c] for c in x.children), default=0)

    def value(self, x: Expr) -> Operand:
        """The value of ``x``, computed now or before."""
        found = self._known(x)
        if found is not None:
            return found
        stack = [x]
        while stack:
            top = stack[-1]
            if self._known(top) is not None:
                stack.pop()
                continue
            missing = [c for c in self._operands(top) if self._known(c) is None]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            self._compute(top)
        found = self._known(x)
        if found is None:
            raise InternalError(f"no value was computed for {x}")
        return found

    def _known(self, x: Expr) -> Operand | None:
        if isinstance(x, Const):
            return const_operand(x)
        if isinstance(x, Var):
            self.level(x)
            return self._variables[x][0]
        found = self._statement.get(x)
        if found is not None:
            return found
        level = self.level(x)
        if level >= _HERE:
            return None
        for scope in self.writer.scopes[level:]:
            value = scope.values.get(x)
            if value is not None:
                return value
        return None

    def _compute(self, x: Expr) -> None:
        if self.level(x) >= _HERE:
            self._statement[x] = self._emit(x)
            return
        place = self.place(x)
        with self.writer.at(place):
            self.writer.scopes[place].values[x] = self._emit(x)

    def place(self, x: Expr) -> int:
        """The scope that computes ``x``: as far outside of loops as can be, out of branches only if
        cheap.
        """
        level = min(self.level(x), self.writer.depth)
        if x not in self._costly:
            return level
        scopes = self.writer.scopes
        branches = (d for d in range(level + 1, len(scopes)) if scopes[d].kind == "branch")
        return max(branches, default=level)

    def _operands(self, x: Expr) -> tuple[Expr, ...]:
        if isinstance(x, Load):
            return () if x.mask is None else (x.mask,)
        fused = self._fused(x)
        return x.children if fused is None else fused

    def _fused(self, x: Expr) -> tuple[Expr, Expr, Expr] | None:
        """The operands of a multiply-add, if ``x`` is a sum with a product that is not invariant
        where the sum is not.
        """
        if (
            not self.writer.parts.contract
            or not isinstance(x, Apply)
            or x.fn != "add"
            or not x.dtype.is_float
            or is_half(x.dtype)
        ):
            return None
        for product, other in (x.args, x.args[::-1]):
            is_product = isinstance(product, Apply) and product.fn == "mul"
            if is_product and self.level(product) == self.level(x):
                return (*product.args, other)  # type: ignore[return-value]  (a product has two operands)
        return None

    def _emit(self, x: Expr) -> Operand:
        if isinstance(x, Load):
            return load(self, x)
        if not isinstance(x, Apply):
            raise InternalError(f"codegen does not know {type(x).__name__}")
        fused = self._fused(x)
        if fused is not None:
            args = tuple([self.value(a) for a in fused])
            return elementwise(self.writer, "fmuladd", x.dtype, args)
        natural = self._divide_naturals(x)
        return self._apply(x) if natural is None else natural

    def _apply(self, x: Apply) -> Operand:
        w = self.writer
        args = tuple([self.value(a) for a in x.args])
        source = x.args[0].dtype
        if x.fn == "cast":
            return cast(w, args[0], source, x.dtype)
        if x.fn == "bitcast":
            return bitcast(w, args[0], x.dtype)
        if x.fn == "select":
            return self._select(x, args)
        if x.fn == "dot":
            return dot(w, *args, kinds=(source, x.args[1].dtype, x.args[2].dtype))
        if x.fn == "maddubs":
            return maddubs(w, *args, lanes=source.lanes)
        if x.fn in VECTOR_FUNCTIONS:
            return vector_function(w, x.fn, args, source, x.dtype)
        return elementwise(w, x.fn, source, args)

    def _select(self, x: Apply, args: tuple[Operand, ...]) -> Operand:
        lanes = x.dtype.lanes
        values = [
            self.writer.splat(value, lanes) if operand.dtype.lanes == 1 else value
            for operand, value in zip(x.args[1:], args[1:], strict=True)
        ]
        return self.writer.select(args[0], *values)

    def _divide_naturals(self, x: Apply) -> Operand | None:
        """Division of an integer that is never negative by a positive constant: unsigned, or a
        shift.
        """
        if x.fn not in _DIVISIONS or x.dtype != i64:
            return None
        divisor = int_value(x.args[1])
        if divisor is None or divisor <= 0:
            return None
        low = interval(x.args[0], self.facts).low
        if low is None or low < 0:
            return None
        return divide_naturals(self.writer, x.fn, self.value(x.args[0]), divisor)

    def where(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Place:
        """The elements of ``buffer`` that an access touches."""
        found = self._places.get((buffer, indices))
        if found is None:
            steps = self._strides.get(buffer)
            if steps is None:
                steps = self._strides[buffer] = strides(buffer)
            found = self._places[buffer, indices] = place_of(indices, steps)
        return found

    def pointer(self, buffer: Buffer, offset: Poly) -> Operand:
        """The address of the element at a linear index; its parts are summed up from the outermost
        scope inwards.
        """
        w = self.writer
        kind = memory_type(buffer.dtype)
        pointer, base_level = self.pointers[buffer]
        key: tuple[object, ...] = (buffer,)
        place = 0
        for level, terms in self._by_level(offset, base_level):
            key = (*key, terms)
            place = max(place, min(level, w.depth), self.place(terms))
            found = w.scopes[place].values.get(key)
            if found is None:
                with w.at(place):
                    index = self.value(terms)
                    found = w.assign("ptr", f"getelementptr {kind}, {pointer}, {index}")
                if level < _HERE:
                    w.scopes[place].values[key] = found
            pointer = found
        if offset.constant:
            pointer = w.assign("ptr", f"getelementptr {kind}, {pointer}, i64 {offset.constant}")
        return pointer

    def _by_level(self, offset: Poly, least: int) -> list[tuple[int, Expr]]:
        groups: dict[int, dict[tuple[Expr, ...], int]] = {}
        for monomial, coefficient in offset.terms.items():
            if monomial:
                level = max(least, *(self.level(a) for a in monomial))
                groups.setdefault(level, {})[monomial] = coefficient
        return [(level, from_poly(Poly(groups[level]))) for level in sorted(groups)]


def _is_costly(x: Expr) -> bool:
    """Whether computing ``x`` where it may not be needed could cost time."""
    return isinstance(x, Apply) and (FUNCTIONS[x.fn].family == "math" or x.fn in _DIVISIONS)
