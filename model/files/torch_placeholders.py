"""Inert placeholders for the Python objects that training checkpoints store beside the weights.

torch's restricted unpickler refuses every name that is not registered. The few names below are
registered with placeholders: each keeps the arguments from the file, or nothing, and executes
nothing. NumPy's own constructors are not used: `values_of` checks shape and dtype.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.files.pickled_array import Allowance, PickledArray, PickledType, RefusedError


class Inert:
    """An object of which nothing is kept."""

    def __new__(cls, *_: object) -> Inert:
        """Accept any constructor arguments."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore the attributes in the file."""


class StoredType(Inert):
    """A NumPy dtype as the file describes it."""

    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        """Keep the byte order."""
        self.state = state


class StoredArray(Inert):
    """A NumPy array as the file describes it."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        """Keep version, shape, dtype, column order and bytes."""
        self.state = state


def _stored_array(*_: object) -> StoredArray:
    return StoredArray()


def _no_scalar(*_: object) -> None:
    """No weight is a single NumPy number."""


_PLACEHOLDERS: Mapping[str, Callable[..., object]] = {
    "mmengine.logging.history_buffer.HistoryBuffer": Inert,
    "numpy.dtype": StoredType,
    "numpy.ndarray": StoredArray,
    # NumPy 2 moved its modules.
    "numpy.core.multiarray._reconstruct": _stored_array,
    "numpy._core.multiarray._reconstruct": _stored_array,
    "numpy.core.multiarray.scalar": _no_scalar,
    "numpy._core.multiarray.scalar": _no_scalar,
}


@contextmanager
def placeholders() -> Iterator[None]:
    """Register the placeholders with torch while one file is read."""
    named: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (placeholder, name) for name, placeholder in _PLACEHOLDERS.items()
    ]
    # torchvision's training script stores its arguments, plain data, beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace, *named]):
        yield


def values_of(stored: StoredArray, allowance: Allowance) -> NDArray[np.generic]:
    """The numbers of an array.

    Raises:
        RefusedError: shape, dtype and bytes disagree, the dtype is not a plain number, or
            `allowance` is used up.
    """
    state = stored.state
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], StoredType):
        raise RefusedError("it has an array whose description is not NumPy's")
    dtype = PickledType(state[2].arguments)
    if state[2].state is not None:
        dtype.build(state[2].state)
    array = PickledArray()
    array.build((*state[:2], dtype, *state[3:]), allowance)
    assert array.values is not None
    return array.values
