"""Floor 11, the command line: ``treadle compile | run | bench | inspect | explain``, and
``generate | serve`` for language models.
"""

from treadle.cli.app import app

__all__ = ["app"]
