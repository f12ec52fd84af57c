"""Floor 8, the command line: ``treadle compile | run | bench | inspect | explain``."""

from treadle.cli.app import app

__all__ = ["app"]
