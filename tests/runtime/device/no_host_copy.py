"""Test doubles for PyTorch and NumPy that count every copy to the host and raise.

On CPU arrays such a copy is invisible; on a GPU it stalls the pipeline. Forbidden are reading a
value (`item`, `bool`, `int`, …), converting an array to a host array, and operations whose output
*shape* depends on the data, because the host must know its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class HostCopyError(AssertionError):
    """A copy to the host."""


class Counter:
    """The copies so far."""

    def __init__(self) -> None:
        self.copies: list[str] = []

    def forbid(self, name: str) -> None:
        self.copies.append(name)
        raise HostCopyError(name)


_READS = {
    "item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__array__",
    "__contains__", "__complex__", "__format__", "__repr__", "__reduce_ex__",
}  # fmt: skip
_DATA_DEPENDENT = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "is_nonzero", "equal", "bincount",
    "repeat_interleave", "argwhere", "nonzero_numpy",
}  # fmt: skip


class _Functions(TorchFunctionMode):
    """Tensor methods; on a CPU some of them never reach an operator."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", str(func))
        named = dict(kwargs or {})
        if name in _READS or (name == "to" and "cpu" in map(str, (*args[1:], *named.values()))):
            self._counter.forbid(f"Tensor.{name}")
        return func(*args, **named)


class _Operators(TorchDispatchMode):
    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace not in ("aten", "prim", "prims"):
            self._counter.forbid(f"{func.namespace}::{name}, whose body is not observed")
        if name in _DATA_DEPENDENT:
            self._counter.forbid(f"aten::{name}")
        if name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            if masks:
                self._counter.forbid(f"aten::{name} with a mask")
        return func(*args, **(kwargs or {}))


@contextmanager
def torch_without_host_copies() -> Iterator[Counter]:
    counter = Counter()
    with _Operators(counter), _Functions(counter):
        yield counter


_FORBIDDEN_FUNCTIONS = {
    "nonzero", "flatnonzero", "argwhere", "unique", "extract", "compress", "array_equal",
    "allclose", "bincount", "array2string", "array_repr", "array_str", "save", "asarray_chkfinite",
}  # fmt: skip


class NoCopyArray(np.ndarray):
    """Host memory that behaves like device memory: its values can be used, but not read."""

    counter: Counter | None

    def __array_finalize__(self, source: Any) -> None:
        self.counter = getattr(source, "counter", None)

    def _forbid(self, name: str) -> None:
        if self.counter is not None:
            self.counter.forbid(f"ndarray.{name}")

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = func.__name__
        if name in _FORBIDDEN_FUNCTIONS or (name == "where" and len(args) == 1):
            self._forbid(name)
        return self._guarded(super().__array_function__(func, types, args, kwargs))

    def _guarded(self, values: Any) -> Any:
        """Some functions of NumPy, like `where`, return plain arrays."""
        if isinstance(values, np.ndarray) and not isinstance(values, NoCopyArray):
            values = values.view(NoCopyArray)
            values.counter = self.counter
        return values

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if any(getattr(part, "dtype", None) == np.bool_ for part in parts):
            self._forbid("__getitem__ with a mask")
        return super().__getitem__(key)


def _forbidding(name: str) -> Callable[..., Any]:
    def method(self: NoCopyArray, *args: Any, **kwargs: Any) -> Any:
        self._forbid(name)
        return getattr(super(NoCopyArray, self), name)(*args, **kwargs)

    return method


for _name in (
    "__bool__", "__int__", "__float__", "__index__", "__complex__", "__iter__", "__contains__",
    "item", "tolist", "tobytes", "dump", "dumps", "tofile", "nonzero", "compress", "__array__",
):  # fmt: skip
    setattr(NoCopyArray, _name, _forbidding(_name))


def numpy_without_host_copies(values: np.ndarray) -> tuple[NoCopyArray, Counter]:
    counter = Counter()
    array = values.view(NoCopyArray)
    array.counter = counter
    return array, counter
