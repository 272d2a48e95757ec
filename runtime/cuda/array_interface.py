"""Device arrays of other libraries, imported and exported without a copy.

Import is by DLPack (CuPy, Numba, PyTorch, JAX) or `__cuda_array_interface__` (the first three);
export is by `__cuda_array_interface__`.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

from model.errors import UsageError

_CUDA, _CUDA_MANAGED = 2, 13
DEFAULT_STREAM = 1  # in both protocols, which forbid the ambiguous 0
_DLPACK_TYPES = {(2, 32): "<f4", (2, 16): "<f2", (0, 32): "<i4", (0, 64): "<i8", (1, 8): "|u1"}


@dataclass(frozen=True, slots=True, eq=False)
class DeviceArray:
    """A dense, row-major array on the GPU.

    Attributes:
        address: of the first element.
        shape: sides.
        typestr: NumPy's dtype string, like "<f4".
        owner: object that holds the memory alive.
        stream: CUDA stream that produces the contents; None when they are ready.
    """

    address: int
    shape: tuple[int, ...]
    typestr: str
    owner: Any = None
    stream: int | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * int(self.typestr[2:])

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the protocol."""
        return {
            "shape": self.shape,
            "typestr": self.typestr,
            "data": (self.address, False),
            "strides": None,
            "stream": self.stream,
            "version": 3,
        }


def as_device_array(name: str, value: Any, stream: int) -> DeviceArray:
    """Import another library's device array.

    Args:
        name: for messages.
        value: anything with `__cuda_array_interface__` or `__dlpack__`.
        stream: that will read the array; a DLPack producer synchronizes with it.

    Raises:
        UsageError: neither protocol, host memory, or an array that is not dense.
    """
    if isinstance(value, DeviceArray):
        return value
    try:
        # DLPack first: its producer synchronizes with our stream.
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            return _from_dlpack(name, value, stream)
        if hasattr(value, "__cuda_array_interface__"):
            return _from_interface(name, value)
    except (RuntimeError, BufferError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{name}: cannot access the memory of {type(value).__name__} ({error}); "
            "copy it into an array of PyTorch or CuPy"
        ) from error
    raise UsageError(
        f"{name}: expected an array on the GPU (with __cuda_array_interface__ or __dlpack__), got "
        f"{type(value).__name__}"
    )


def _from_interface(name: str, value: Any) -> DeviceArray:
    interface = value.__cuda_array_interface__
    shape = tuple(int(side) for side in interface["shape"])
    typestr = str(interface["typestr"])
    item = int(typestr[2:])
    strides = interface.get("strides")
    if strides is not None:
        _require_dense(name, shape, tuple(int(s) // item for s in strides))
    # Before version 3 there is no stream field: the producer may use the default stream.
    stream = interface.get("stream", DEFAULT_STREAM)
    return DeviceArray(int(interface["data"][0]), shape, typestr, value, stream)


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(name: str, value: Any, stream: int) -> DeviceArray:
    """Read the tensor of a capsule and hold the capsule unconsumed: its owner frees it."""
    if int(value.__dlpack_device__()[0]) not in (_CUDA, _CUDA_MANAGED):
        raise UsageError(f"{name}: expected GPU memory, got an array on the host")
    capsule = value.__dlpack__(stream=stream)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    # The managed tensor begins with the tensor itself.
    tensor = _DLTensor.from_address(pointer(capsule, b"dltensor") or 0)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if tensor.strides:
        _require_dense(name, shape, tuple(tensor.strides[i] for i in range(tensor.ndim)))
    typestr = _DLPACK_TYPES.get((tensor.code, tensor.bits))
    if typestr is None or tensor.lanes != 1:
        raise UsageError(
            f"{name}: expected float32, got DLPack type code {tensor.code} with {tensor.bits} bits"
        )
    address = int(tensor.data or 0) + int(tensor.byte_offset)
    return DeviceArray(address, shape, typestr, (capsule, value))


def _require_dense(name: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side != 1 and stride != expected:
            raise UsageError(f"{name}: expected a dense row-major array, got strides {strides}")
        expected *= side
