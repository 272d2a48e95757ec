"""Device memory that later calls reuse: uploaded tables and the network's canvas.

A workspace belongs to one stream: stream order keeps a call from overwriting what the previous call
still reads.

Legend: N images, H x W canvas, in pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import numpy.typing as npt

from runtime.device.library import Array, Library

# A camera needs a few tables; a folder of photos in all sizes must not fill the memory.
_MOST_TABLES = 256
_MOST_CANVASES = 4
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Workspace:
    """Buffers of one library on one stream.

    Args:
        library: of the frames.
        like: an array on the device of this workspace.

    Attributes:
        library: of the frames.
        device: the library's own device object.
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
        """Tables that depend on `key` only; computed and uploaded at the first request."""
        if key not in self._tables:
            self._tables[key] = tuple(self.library.upload(t, self._like) for t in make())
        return recently_used(self._tables, key, _MOST_TABLES)

    def canvas(self, shape: tuple[int, int, int, int], placements: Hashable) -> Array:
        """float32 [N, 3, H, W], zero outside the frames at `placements`.

        The memory is reused for the same shape.
        """
        cached = self._canvases.get(shape)
        if cached is None or cached[0] != placements:
            xp = self.library.xp
            if cached is None:
                canvas = xp.zeros(shape, dtype=xp.float32, device=self.device)
            else:
                canvas = cached[1]
                canvas[...] = 0.0
            self._canvases[shape] = (placements, canvas)
        return recently_used(self._canvases, shape, _MOST_CANVASES)[1]


def recently_used(cache: OrderedDict[_Key, _Value], key: _Key, capacity: int) -> _Value:
    """The value of a key, which becomes the last to be evicted; evicts down to the capacity."""
    cache.move_to_end(key)
    while len(cache) > capacity:
        cache.popitem(last=False)
    return cache[key]
