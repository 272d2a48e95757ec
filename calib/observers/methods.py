"""The observers by the names of `--method`."""

from __future__ import annotations

from calib.observers.entropy import Entropy
from calib.observers.min_max import MinMax
from calib.observers.mse import Mse
from calib.observers.observer import Observer
from calib.observers.percentile import Percentile
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
