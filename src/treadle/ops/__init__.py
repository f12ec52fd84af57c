"""Floor 3: every operation, one class each; ``OPS`` is the catalogue."""

from treadle.ir.calls import CALLS
from treadle.ir.op import Op
from treadle.ops.activation import (
    Celu,
    Clip,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    Prelu,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    ThresholdedRelu,
)
from treadle.ops.adaptive_pool import AdaptiveAvgPool, AdaptiveMaxPool
from treadle.ops.attention import Attention
from treadle.ops.binary import (
    Add,
    Atan2,
    Copysign,
    Div,
    FloorDiv,
    Fmod,
    Maximum,
    Minimum,
    Mod,
    Mul,
    Nextafter,
    Sub,
    TruncDiv,
)
from treadle.ops.broadcast import Expand, Sum
from treadle.ops.channel_norm import BatchNorm, GroupNorm, InstanceNorm, Lrn
from treadle.ops.columns import Col2im, Im2col
from treadle.ops.compare import (
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalOr,
    LogicalXor,
    NotEqual,
    ShiftLeft,
    ShiftRight,
    Where,
)
from treadle.ops.contraction import Einsum, Matmul
from treadle.ops.convolution import Conv, ConvTranspose
from treadle.ops.create import Arange, Full
from treadle.ops.elementwise import (
    Abs,
    Bitcast,
    BitwiseNot,
    Cast,
    Ceil,
    Erf,
    Erfc,
    Erfinv,
    Exp,
    Exp2,
    Expm1,
    Floor,
    IsFinite,
    IsInf,
    IsNan,
    Lgamma,
    Log,
    Log1p,
    Log2,
    Log10,
    LogicalNot,
    Neg,
    Reciprocal,
    Round,
    Rsqrt,
    Sign,
    Sqrt,
    Square,
    Trunc,
)
from treadle.ops.grid_sample import GridSample
from treadle.ops.index import Gather, GatherElements, GatherNd, OneHot, ScatterElements, ScatterNd
from treadle.ops.integer_product import IntegerMatmul
from treadle.ops.nonzero import Compact, CountTrue, FlatNonzero, Nonzero, Unravel
from treadle.ops.normalize import LayerNorm, LogSoftmax, RmsNorm, Softmax
from treadle.ops.pad import Pad
from treadle.ops.paged import PagedAttention, WritePages
from treadle.ops.pool import AvgPool, LpPool, MaxPool, MaxUnpool
from treadle.ops.power import Pow
from treadle.ops.random import RandomNormal, RandomUniform
from treadle.ops.reduce import All, Any, ArgMax, ArgMin, LogSumExp, Max, Mean, Min, Prod, Variance
from treadle.ops.repeat import RepeatEach, Repeated
from treadle.ops.reshape import Reshape
from treadle.ops.resize import Resize
from treadle.ops.scan import CumMax, CumMin, CumProd, CumSum, LinearScan
from treadle.ops.shape import Concat, Flip, Permute, Roll, Slice, Tile, Triangular
from treadle.ops.sort import Sort, TopK
from treadle.ops.suppression import NonMaxSuppression, Suppress
from treadle.ops.trigonometric import (
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Cos,
    Cosh,
    Sin,
    Sinh,
    Tan,
    Tanh,
)
from treadle.ops.unique import RunLengths, RunStarts, SortRows, Unique
from treadle.ops.winograd import WinogradInput, WinogradOutput

OPS: tuple[type[Op], ...] = (
    # elementwise, of one operand
    *(Neg, Abs, Sign, Exp, Exp2, Expm1, Log, Log2, Log10, Log1p, Sqrt, Rsqrt, Reciprocal, Square),
    *(
        Sin,
        Cos,
        Tan,
        Asin,
        Acos,
        Atan,
        Sinh,
        Cosh,
        Tanh,
        Asinh,
        Acosh,
        Atanh,
        Erf,
        Erfc,
        Erfinv,
        Lgamma,
    ),
    *(Floor, Ceil, Trunc, Round, IsNan, IsInf, IsFinite, LogicalNot, BitwiseNot, Cast, Bitcast),
    # elementwise, of more operands
    *(
        Add,
        Sub,
        Mul,
        Div,
        FloorDiv,
        TruncDiv,
        Mod,
        Fmod,
        Pow,
        Maximum,
        Minimum,
        Atan2,
        Copysign,
        Nextafter,
    ),
    *(BitwiseAnd, BitwiseOr, BitwiseXor, ShiftLeft, ShiftRight, LogicalAnd, LogicalOr, LogicalXor),
    *(Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual, Where),
    # activations
    *(
        Relu,
        Sigmoid,
        Silu,
        Softsign,
        Mish,
        HardSwish,
        Gelu,
        LeakyRelu,
        Elu,
        Selu,
        Celu,
        Softplus,
        HardSigmoid,
    ),
    *(ThresholdedRelu, Prelu, Clip),
    # reductions and scans
    *(Sum, Prod, Max, Min, Mean, Any, All, Variance, LogSumExp, ArgMax, ArgMin),
    *(CumSum, CumProd, CumMax, CumMin, LinearScan),
    # movement of elements
    *(Reshape, Permute, Expand, Slice, Concat, Tile, Flip, Roll, Triangular, Pad),
    *(Gather, GatherElements, GatherNd, ScatterElements, ScatterNd, OneHot, Sort, TopK),
    # as large as values say
    *(Nonzero, FlatNonzero, CountTrue, Compact, Unravel),
    *(Unique, SortRows, RunStarts, RunLengths),
    *(RepeatEach, Repeated, NonMaxSuppression, Suppress),
    # contractions, windows and sampling
    *(Matmul, IntegerMatmul, Einsum, Conv, ConvTranspose, Im2col, Col2im),
    *(WinogradInput, WinogradOutput),
    *(MaxPool, AvgPool, AdaptiveAvgPool, AdaptiveMaxPool, LpPool, MaxUnpool, Resize, GridSample),
    # normalizations
    *(Softmax, LogSoftmax, LayerNorm, RmsNorm, BatchNorm, GroupNorm, InstanceNorm, Lrn, Attention),
    *(WritePages, PagedAttention),
    # sources
    *(Full, Arange, RandomUniform, RandomNormal),
    # joints of a module
    *CALLS,
)

OPS_BY_NAME: dict[str, type[Op]] = {op.op_name(): op for op in OPS}
