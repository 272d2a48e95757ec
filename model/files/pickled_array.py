"""Rebuild the NumPy values of a pickle from checked parts, without NumPy's own constructors.

A pickled array stores its shape, dtype and bytes separately. They are accepted only if they agree,
and all arrays of a file together only up to its size.
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

_NUMERIC = re.compile(r"([<>=|]?)(b1|[iu][1248]|f[248])")
_ORDERS = {"<": "<", ">": ">", "=": "=", "|": "="}
_MAX_AXES = 8


class RefusedError(ValueError):
    """A pickle holds something that a weights file does not need."""


class Allowance:
    """How many bytes of arrays one file may produce."""

    def __init__(self, size: int) -> None:
        self.left = size

    def spend(self, size: int) -> None:
        """Subtract `size` bytes.

        Raises:
            RefusedError: fewer are left.
        """
        self.left -= size
        if self.left < 0:
            raise RefusedError("its arrays claim more bytes than the file has")


class PickledType:
    """A numeric dtype; `build` sets the byte order, which pickles store separately."""

    def __init__(self, arguments: tuple[object, ...]) -> None:
        name = arguments[0] if arguments else None
        match = _NUMERIC.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise RefusedError(f"it has an array of {shown(name)}, not of plain numbers")
        self.order, self.code = _ORDERS.get(match[1], "="), match[2]

    def build(self, state: object) -> None:
        """Take the byte order from NumPy's state tuple; fields and sub-arrays are refused."""
        is_plain = isinstance(state, tuple) and len(state) >= 5 and state[2:5] == (None,) * 3
        order = state[1] if isinstance(state, tuple) and is_plain else None
        if not isinstance(order, str) or order not in _ORDERS:
            raise RefusedError("it has an array with a compound dtype")
        self.order = _ORDERS[order]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The dtype in the byte order of the file."""
        return np.dtype(self.order + self.code)


class PickledArray:
    """An array of a pickle: `values` is None until `build` has set it."""

    def __init__(self) -> None:
        self.values: NDArray[np.generic] | None = None

    def build(self, state: object, allowance: Allowance) -> None:
        """Take NumPy's state tuple: version, shape, dtype, column order, bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("it has an array whose description is not NumPy's")
        _, shape, dtype, is_fortran, content = state
        order = "F" if is_fortran is True or is_fortran == 1 else "C"
        self.values = array_of(content, dtype, shape, order, allowance)


def array_of(
    content: object, dtype: object, shape: object, order: object, allowance: Allowance
) -> NDArray[np.generic]:
    """A new C-ordered array in the machine's byte order.

    Raises:
        RefusedError: the bytes do not match shape and dtype, or `allowance` is used up.
    """
    if not isinstance(dtype, PickledType):
        raise RefusedError("it has an array without a dtype")
    if isinstance(content, str):  # bytes as Python 2 wrote them
        content = as_bytes(content, allowance)
    if not isinstance(content, bytes | bytearray):
        raise RefusedError("it has an array without its bytes")
    sides = _sides(shape)
    if math.prod(sides) * dtype.dtype.itemsize != len(content):
        raise RefusedError(f"it has an array of shape {sides} with {len(content)} bytes")
    allowance.spend(len(content))
    flat = np.frombuffer(content, dtype.dtype)
    values = flat.reshape(sides, order="F" if order == "F" else "C")
    return np.array(values, dtype.dtype.newbyteorder("="), order="C")


def scalar_of(dtype: object, content: object, allowance: Allowance) -> float | int | bool:
    """The Python number of a pickled NumPy scalar."""
    number: float | int | bool = array_of(content, dtype, (), "C", allowance).item()
    return number


def as_bytes(text: str, allowance: Allowance) -> bytes:
    """Bytes that an old protocol wrote as a Latin-1 string."""
    allowance.spend(len(text))
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise RefusedError("it has bytes that are not Latin-1") from error


def shown(value: object) -> str:
    """A short form of a string; of anything else the type, since a repr has no bound."""
    return repr(value[:60]) if isinstance(value, str) else f"type {type(value).__name__}"


def _sides(shape: object) -> tuple[int, ...]:
    sides = shape if isinstance(shape, tuple) and len(shape) <= _MAX_AXES else None
    if sides is None or not all(type(s) is int and 0 <= s < 2**31 for s in sides):
        raise RefusedError(f"it has an array whose shape is not {_MAX_AXES} sizes or fewer")
    return sides
