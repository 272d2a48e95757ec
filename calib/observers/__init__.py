"""Observers: from the values of a tensor on calibration photos to the magnitude to represent.

Codes are symmetric, so observers look at magnitudes. Their memory is bounded, and their state can
be saved to a table and restored.

observer: the protocol, and checks of numbers read from a table.
methods: the observers by the names of `--method`.
histogram: counts of magnitudes, exact and independent of the order of photos.
mse: the range with the smallest mean squared error.
entropy: the range with the smallest Kullback-Leibler divergence.
percentile: the range that covers 99.99 % of the values.
min_max: the largest magnitude.
"""
