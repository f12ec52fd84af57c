"""Those who run a model, each in a file that needs what it is named after."""

from importlib import import_module

from .peer import Peer

PEERS = ("treadle", "eager", "compile", "onnxruntime", "openvino", "llama_cpp")


def load_peer(name: str) -> type[Peer]:
    """The class of a peer."""
    return import_module(f"{__name__}.{name}").PEER
