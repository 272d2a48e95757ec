"""Observers: from the values of a tensor on calibration photos to the magnitude to represent.

Codes are symmetric, so observers look at magnitudes. Their memory is bounded, and their state can
be saved to a table and restored.

observer: the protocol, and checks of numbers read from a table.
methods: the observers by the names of `--method`; `min-max` itself.
histogram: exact counts of magnitudes; the ranges of `mse`, `entropy` and `percentile`.
"""
