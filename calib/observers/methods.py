"""The observers by the names of `--method`."""

from __future__ import annotations

from calib.observers.histogram import Entropy, Mse, Percentile
from calib.observers.min_max import MinMax
from calib.observers.observer import Observer
from model.errors import UsageError

METHODS: dict[str, type[Observer]] = {
    "min-max": MinMax,
    "percentile": Percentile,
    "entropy": Entropy,
    "mse": Mse,
}


def method_named(name: str) -> type[Observer]:
    """The observer of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        raise UsageError(f"--method: expected one of {', '.join(METHODS)}, got '{name}'")
    return METHODS[name]
