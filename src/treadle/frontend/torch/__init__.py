"""The PyTorch front end: ``torch.export`` captures, converters translate operator by operator."""

from treadle.frontend.torch.export import Imported, import_module
from treadle.frontend.torch.graph import import_graph

__all__ = ["Imported", "import_graph", "import_module"]
