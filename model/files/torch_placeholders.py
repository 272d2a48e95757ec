"""What stands in for the Python objects that trainings keep beside weights, for torch's unpickler.

torch refuses names that it was not told of. For the few below it is told of these stand-ins: they
keep what the file gave them, or nothing, and do nothing. NumPy's own rebuilders are not among
them, since they believe shapes and number types; `values_of` checks those.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.files.pickled_array import Allowance, PickledType, RefusedError, array_of


class Inert:
    """An object of which nothing is kept."""

    def __new__(cls, *_: object) -> Inert:
        """Take whatever the object's class took."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Take no attribute of the file's."""


class StoredType(Inert):
    """What a file says of a number type."""

    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        """Keep the byte order."""
        self.state = state


class StoredArray(Inert):
    """What a file says of a NumPy array."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        """Keep version, shape, type, column order and bytes."""
        self.state = state


def _stored_array(*_: object) -> StoredArray:
    return StoredArray()


def _no_scalar(*_: object) -> None:
    """No weight is a single number of NumPy's."""


_STAND_INS: Mapping[str, Callable[..., object]] = {
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
def stand_ins() -> Iterator[None]:
    """Tell torch of them for as long as one file is read."""
    known: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (stand_in, name) for name, stand_in in _STAND_INS.items()
    ]
    # torchvision's own training script keeps its arguments, plain data, beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace, *known]):
        yield


def values_of(stored: StoredArray, allowance: Allowance) -> NDArray[np.generic]:
    """The numbers of an array.

    Raises:
        RefusedError: its parts do not agree, it is of no plain numbers, or claims too much.
    """
    state = stored.state
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], StoredType):
        raise RefusedError("it has an array whose description is not NumPy's")
    dtype = PickledType(state[2].arguments)
    if state[2].state is not None:
        dtype.build(state[2].state)
    _, shape, _, is_fortran, content = state
    return array_of(content, dtype, shape, "F" if is_fortran in (True, 1) else "C", allowance)
