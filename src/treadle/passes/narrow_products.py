"""Products of integers that came from bytes, as products of bytes: machines multiply four at once.

``matmul(cast(x, i32), cast(w, i32))`` becomes ``integer_matmul(x, w)`` where both are u8 or i8, and
so does a product with a constant whose numbers fit. A point that is subtracted from ``x`` first, as
quantized formats have it, is taken off the result instead: ``matmul(x - z, w) = matmul(x, w) - z *
sum(w)``, for constant ``w`` with its sums of columns computed here. Sums of 32 bits wrap, so all of
this is exact.
"""

from dataclasses import dataclass, field
from itertools import count

import numpy as np

from treadle.base.rewrite import replace_fields
from treadle.expr.dtype import DType, from_numpy, i8, i32, u8
from treadle.expr.scalar import Const, int_value
from treadle.ir.graph import Atom, Binding, ConstantRef, GraphFunction, Literal, Value
from treadle.ir.module import Constant, Module
from treadle.ir.types import TensorType, tensor
from treadle.ops import Cast, IntegerMatmul, Matmul, Mul, Sub
from treadle.ops.integer_product import BYTES

Operand = Value | ConstantRef


def narrow_products(module: Module) -> Module:
    """Multiply bytes as bytes where the results are the same."""
    constants = dict(module.constants)
    functions = {
        f.name: _Narrow(f, constants).run() if isinstance(f, GraphFunction) else f
        for f in module.functions.values()
    }
    return Module(functions, constants)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """An i32 operand as bytes, less ``point``: i32 too, the same along the last axis."""

    operand: Operand
    point: Atom | None = None


@dataclass(slots=True)
class _Narrow:
    """One graph function; constants of bytes and sums of columns are added to the module's."""

    function: GraphFunction
    constants: dict[str, Constant]
    made_by: dict[Value, Binding] = field(default_factory=dict[Value, Binding])
    body: list[Binding] = field(default_factory=list[Binding])

    def run(self) -> GraphFunction:
        for binding in self.function.body:
            self.made_by.update((v, binding) for v in binding.outputs)
            if not self.product(binding):
                self.body.append(binding)
        return replace_fields(self.function, body=tuple(self.body))

    def product(self, b: Binding) -> bool:
        """Multiply bytes instead of what ``b`` does, if both of its operands are."""
        out = b.outputs[0]
        if type(b.op) is not Matmul or not isinstance(out.type, TensorType):
            return False
        if out.type.dtype != i32 or out.type.shape is None:
            return False
        left, right = (self.bytes(a) for a in b.args)
        if left is None or right is None or right.point is not None:
            return False
        if left.point is None:
            self.body.append(replace_fields(b, op=IntegerMatmul(), args=_pair(left, right)))
            return True
        sums = self.column_sums(right.operand)
        if sums is None:
            return False
        product, surplus = (Value(self.fresh(f"{out.name}_{x}"), out.type) for x in ("raw", "off"))
        offset = Mul().infer(_type(left.point), _type(sums))
        surplus = Value(surplus.name, offset)
        self.body.extend(
            (
                replace_fields(b, outputs=(product,), op=IntegerMatmul(), args=_pair(left, right)),
                Binding((surplus,), Mul(), (left.point, sums), b.span),
                Binding((out,), Sub(), (product, surplus), b.span),
            )
        )
        return True

    def bytes(self, a: Atom) -> _Bytes | None:
        """The bytes that an operand is made of."""
        known = self.known(a)
        if known is not None:
            return self.constant_bytes(a, known)
        source = self.made_by.get(a) if isinstance(a, Value) else None
        if source is None:
            return None
        if isinstance(source.op, Cast):
            x = source.args[0]
            plain = isinstance(x, Operand) and _type(x).dtype in BYTES
            return _Bytes(x) if plain and isinstance(x, Operand) else None
        if isinstance(source.op, Sub):
            inner, point = self.bytes(source.args[0]), source.args[1]
            whole = inner is not None and _type(source.args[0]).shape == _type(a).shape
            if inner is not None and whole and inner.point is None and _is_point(point, inner):
                return _Bytes(inner.operand, point)
        return None

    def known(self, a: Atom) -> np.ndarray | None:
        """The numbers of an operand that casts and differences make of constants.

        What is too large to be folded is not folded for good here either.
        """
        if isinstance(a, ConstantRef):
            found = self.constants.get(a.name)
            return None if found is None else found.array
        if isinstance(a, Literal):
            x = a.value
            return np.asarray(x.value, x.dtype.numpy) if isinstance(x, Const) else None
        source = self.made_by.get(a) if isinstance(a, Value) else None
        if source is None or not isinstance(source.op, Cast | Sub):
            return None
        operands = [self.known(x) for x in source.args]
        arrays = [x for x in operands if x is not None]
        if len(arrays) < len(operands):
            return None
        return np.asarray(source.op.reference(*arrays))

    def constant_bytes(self, a: Atom, known: np.ndarray) -> _Bytes | None:
        """A constant of i32 as one of bytes, if its numbers fit."""
        if known.size == 0 or known.ndim == 0:
            return None
        low, high = int(known.min()), int(known.max())
        dtype = next((d for d in (i8, u8) if _fits(d, low, high)), None)
        if dtype is None:
            return None
        name = a.name if isinstance(a, Value | ConstantRef) else "constant"
        return _Bytes(self.constant(f"{name}_bytes", known.astype(dtype.numpy)))

    def column_sums(self, w: Operand) -> ConstantRef | None:
        """The sums of the columns of a constant matrix, as i32."""
        known = self.constants.get(w.name) if isinstance(w, ConstantRef) else None
        if known is None or known.array.ndim != 2:
            return None
        sums = known.array.sum(axis=0, dtype=np.int32)
        return self.constant(f"{w.name}_sums", sums)

    def constant(self, hint: str, array: np.ndarray) -> ConstantRef:
        """A constant of the module, the same for the same name and contents."""
        dtype = from_numpy(array.dtype)
        assert dtype is not None
        type_ = tensor(list(array.shape), dtype)
        for number in count():
            name = hint if number == 0 else f"{hint}_{number}"
            known = self.constants.setdefault(name, Constant(type_, array))
            if known.type == type_ and np.array_equal(known.array, array):
                return ConstantRef(name, type_)
        raise AssertionError

    def fresh(self, hint: str) -> str:
        """A name that no value has."""
        taken = {v.name for b in (*self.function.body, *self.body) for v in b.outputs}
        taken |= {p.name for p in self.function.params}
        return next(n for i in count() if (n := hint if i == 0 else f"{hint}_{i}") not in taken)


def _pair(left: _Bytes, right: _Bytes) -> tuple[Atom, ...]:
    return left.operand, right.operand


def _type(a: Atom) -> TensorType:
    assert isinstance(a.type, TensorType)
    return a.type


def _fits(dtype: DType, low: int, high: int) -> bool:
    info = np.iinfo(dtype.numpy)
    return info.min <= low and high <= info.max


def _is_point(a: Atom, x: _Bytes) -> bool:
    """Whether an operand is the same along the last axis of ``x``, which is a matrix or more."""
    type_ = a.type
    if not isinstance(type_, TensorType) or type_.shape is None or _type(x.operand).ndim < 2:
        return False
    if isinstance(a, Literal):
        return isinstance(a.value, Const)
    return type_.ndim <= _type(x.operand).ndim and (
        type_.ndim == 0 or int_value(type_.shape[-1]) == 1
    )
