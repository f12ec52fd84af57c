"""Processes that take turns, measurements, tables."""
