"""Models whose compilation is timed, with and without what an earlier one left on disk."""

from .models import MODELS, model
from .work import Work

NAMES = ("ResNet-50", "BERT-base 128")


def _compilation(name: str, key: str, batch: int) -> Work:
    same = model(name, key, batch)
    return Work("compile", f"compile {name}", same.build, whole=True, tolerance=same.tolerance)


WORKS = tuple(_compilation(*each) for each in MODELS if each[0] in NAMES)
