"""Attention in one operation, where that says what the node does."""

from collections.abc import Sequence

from treadle.base.errors import ModelImportError
from treadle.expr.scalar import Expr
from treadle.expr.simplify import simplify
from treadle.frontend.onnx.compose import permute, reshape
from treadle.frontend.onnx.converter import converter
from treadle.frontend.onnx.region import Site
from treadle.frontend.onnx.value import Operand
from treadle.ir.graph_builder import Traced
from treadle.ops import Attention
from treadle.ops._shapes import same_dim


def _heads(x: Traced, count: int | None) -> Traced:
    """(batch, steps, heads · width) as (batch, heads, steps, width)."""
    if x.ndim == 4:
        return x
    if not count:
        raise ModelImportError(
            "E0605",
            "Attention of rank 3 needs the numbers of heads",
            help="check the model with onnx.checker.check_model",
        )
    batch, steps, width = x.shape
    return permute(reshape(x, batch, steps, count, simplify(width // count)), 0, 2, 1, 3)


def _fits(mask: Operand | None, keys: Expr) -> bool:
    return mask is None or (mask.ndim >= 2 and same_dim(mask.shape[-1], keys))


@converter("Attention", since=23)
def attention(
    site: Site,
    query: Operand,
    key: Operand,
    value: Operand,
    mask: Operand | None = None,
    past_key: Operand | None = None,
    past_value: Operand | None = None,
    nonpad_kv_seqlen: Operand | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Sequence[Operand | Traced | None]:
    """Without cache, cap, window and further results; ONNX's definition otherwise."""
    further = any(site.wants(k) for k in (1, 2, 3))
    cached = past_key is not None or past_value is not None or nonpad_kv_seqlen is not None
    limited = bool(softcap) or left_window_size >= 0 or right_window_size >= 0
    if further or cached or limited or not _fits(mask, key.shape[-2]):
        return site.expand(site.region)
    q = _heads(site.traced(query), q_num_heads)
    k, v = (_heads(site.traced(x), kv_num_heads) for x in (key, value))
    extra = [] if mask is None else [site.traced(mask)]
    found = Attention(bool(is_causal), scale)(q, k, v, *extra)
    if query.ndim == 4:
        return (found,)
    batch, heads, steps, width = found.shape
    return (reshape(permute(found, 0, 2, 1, 3), batch, steps, simplify(heads * width)),)


CONVERTERS = (attention,)
