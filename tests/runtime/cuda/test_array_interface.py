"""Import of device arrays by both protocols; host memory replaces a GPU's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.errors import UsageError
from runtime.cuda.array_interface import DEFAULT_STREAM, DeviceArray, as_device_array

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


class _Interface:
    """An array with `__cuda_array_interface__` alone."""

    def __init__(self, values: np.ndarray, **fields: Any) -> None:
        self.values = values
        self.__cuda_array_interface__ = {
            "data": (values.ctypes.data, False), "shape": values.shape,
            "strides": values.strides, "typestr": values.dtype.str, "version": 3, **fields,
        }  # fmt: skip


class _DLPack:
    """NumPy's own capsule with the device changed."""

    def __init__(self, values: np.ndarray, device: int = 2) -> None:
        self._values, self._device = values, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self._device, 0)

    def __dlpack__(self, stream: int | None = None) -> Any:
        assert stream == DEFAULT_STREAM
        return self._values.__dlpack__()


class _NotExporting(_DLPack):
    def __dlpack__(self, stream: int | None = None) -> Any:
        raise BufferError("it requires a gradient")


@pytest.mark.parametrize("protocol", [_Interface, _DLPack])
@pytest.mark.parametrize("typestr", ["<f4", "<f2", "<i4", "<i8", "|u1"])
def test_both_protocols_give_the_same(protocol: Any, typestr: str) -> None:
    values = VALUES.astype(typestr)
    # From the second row: the address is not the start of the memory.
    array = as_device_array("frame", protocol(values[1:]), DEFAULT_STREAM)
    expected = values.ctypes.data + values.strides[0]
    assert (array.address, array.shape, array.typestr) == (expected, (2, 4), typestr)
    assert array.nbytes == values[1:].nbytes


def test_fields_that_may_differ() -> None:
    array = _Interface(VALUES[:1], strides=(4096, 4))
    assert as_device_array("frame", array, DEFAULT_STREAM).shape == (1, 4)
    assert as_device_array("frame", _Interface(VALUES), DEFAULT_STREAM).stream == DEFAULT_STREAM
    assert as_device_array("frame", _Interface(VALUES, stream=None), DEFAULT_STREAM).stream is None
    assert as_device_array("frame", _DLPack(VALUES), DEFAULT_STREAM).stream is None
    ours = DeviceArray(64, (3,), "<f4")
    assert as_device_array("frame", ours, DEFAULT_STREAM) is ours


def test_refused_values(subtests: pytest.Subtests) -> None:
    for value, message in [
        (VALUES.tolist(), r"\(with __cuda_array_interface__ or __dlpack__\), got list"),
        (VALUES, "expected GPU memory, got an array on the host"),
        (_DLPack(VALUES, device=10), "expected GPU memory"),
        (_NotExporting(VALUES), "memory of _NotExporting .it requires"),
        (_Interface(VALUES, typestr="float"), "the memory of _Interface"),
        (_DLPack(VALUES.astype(np.float64)), "got DLPack type code 2 with 64"),
        (_DLPack(VALUES > 3), "got DLPack type code 6 with 8"),
        (_DLPack(VALUES.T), r"dense row-major array, got strides \(1, 4\)"),
        (_Interface(VALUES[:, ::2]), r"got strides \(4, 2\)"),
    ]:
        with subtests.test(message), pytest.raises(UsageError, match=f"^frame: .*{message}"):
            as_device_array("frame", value, DEFAULT_STREAM)
