"""What is kept from call to call: uploaded tables, and the canvas that the network reads.

A workspace belongs to one stream, whose order keeps a call from overwriting what the one before
still reads.

Legend: N images, H x W canvas, in pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy.typing as npt

from runtime.device.library import Array, Library

# A camera needs a handful of tables; a folder of photos of all sizes must not fill the memory.
_MOST_TABLES = 256
_MOST_CANVASES = 4
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Workspace:
    """Buffers of one library on one stream.

    Args:
        library: which computes.
        like: an array of the device that everything here lives on.

    Attributes:
        library: which computes.
        device: as the library names it.
    """

    def __init__(self, library: Library, like: Array) -> None:
        self.library = library
        import array_api_compat as compat

        self.device: Any = compat.device(like)
        # A slice of `like` would keep the whole frame.
        self._like = library.xp.empty((0,), dtype=library.xp.uint8, device=self.device)
        self._tables: OrderedDict[Hashable, tuple[Array, ...]] = OrderedDict()
        self._canvases: OrderedDict[tuple[int, ...], tuple[Hashable, Array]] = OrderedDict()

    def tables(
        self, key: Hashable, make: Callable[[], Sequence[npt.NDArray[Any]]]
    ) -> tuple[Array, ...]:
        """Tables that depend on `key` only; made and uploaded when they are first asked for."""
        if key not in self._tables:
            self._tables[key] = tuple(self.library.upload(t, self._like) for t in make())
        return _used(self._tables, key, _MOST_TABLES)

    def canvas(self, shape: tuple[int, int, int, int], places: Hashable) -> Array:
        """Float32 [N, 3, H, W], zero wherever photos at `places` do not stand.

        The same memory again for the same shape, so what was in it is gone.
        """
        held = self._canvases.get(shape)
        if held is None or held[0] != places:
            xp = self.library.xp
            if held is None:
                fresh = xp.zeros(shape, dtype=xp.float32, device=self.device)
            else:
                fresh = held[1]
                fresh[...] = 0.0
            self._canvases[shape] = (places, fresh)
        return _used(self._canvases, shape, _MOST_CANVASES)[1]


def _used(held: OrderedDict[_Key, _Value], key: _Key, most: int) -> _Value:
    """The value of a key, which becomes the last to be dropped."""
    held.move_to_end(key)
    while len(held) > most:
        held.popitem(last=False)
    return held[key]
