"""Masks: pasting, run-length encoding, polygons."""
