"""The observers by the names of `--method`."""

from __future__ import annotations

from calib.observers.histogram import Entropy, Mse, Percentile
from calib.observers.min_max import MinMax
from calib.observers.observer import Observer

METHODS: dict[str, type[Observer]] = {
    "min-max": MinMax,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": Mse,
}
