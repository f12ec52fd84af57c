"""Importers: a model of another framework becomes a module of one entry, ``main``."""
