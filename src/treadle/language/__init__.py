"""Language models: configurations, weights, caches, generation."""

from treadle.language.cache import Batch, CachedSequence, PagedCache
from treadle.language.config import DecoderConfig
from treadle.language.families import read_config
from treadle.language.model import LanguageModel
from treadle.language.sampling import GREEDY, Sampler, Sampling

__all__ = [
    "GREEDY",
    "Batch",
    "CachedSequence",
    "DecoderConfig",
    "LanguageModel",
    "PagedCache",
    "Sampler",
    "Sampling",
    "read_config",
]
