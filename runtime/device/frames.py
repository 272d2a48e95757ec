"""The frames of a call: one device array or several, channels last or first.

Legend: N frames, h x w each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import UsageError
from runtime.device.library import Array, Library, library_of
from runtime.device.resize import Layout

ChannelOrder = Literal["rgb", "bgr"]

_EXPECTED = "uint8 [h, w, 3] or [3, h, w], a batch of them, or a list"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Frames of one size: uint8 [N, h, w, 3], or [N, 3, h, w] in layout "chw"."""

    pixels: Array
    layout: Layout

    @property
    def count(self) -> int:
        """Number of frames, N."""
        return int(self.pixels.shape[0])

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of each."""
        sides = self.pixels.shape[1:3] if self.layout == "hwc" else self.pixels.shape[2:4]
        return int(sides[0]), int(sides[1])


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """All frames of one call, in order.

    Attributes:
        library: of the arrays.
        groups: at least one.
    """

    library: Library
    groups: tuple[Group, ...]

    @property
    def hws(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every frame."""
        return tuple(group.hw for group in self.groups for _ in range(group.count))


def read_frames(frames: Any, layout: Layout | None = None) -> Frames:
    """Check frames and group them by size, without a copy.

    Args:
        frames: a device array uint8 [h, w, 3], [3, h, w], [N, h, w, 3] or [N, 3, h, w] of
            PyTorch, CuPy, NumPy, or any library with `__dlpack__` or `__cuda_array_interface__`;
            or a list of single frames, which may differ in size.
        layout: position of the channels; needed only if both ends of a shape are 3.

    Raises:
        UsageError: another shape or dtype, or an empty list.
        MissingDependencyError: see `library_of`.
    """
    is_list = isinstance(frames, list | tuple)
    values = list(frames) if is_list else [frames]
    if not values:
        raise UsageError(f"frames: expected {_EXPECTED}, got an empty list")
    library = library_of(values[0])
    groups = []
    for index, value in enumerate(values):
        name = f"frames[{index}]" if is_list else "frames"
        array = _adopt(library, value, name)
        if array.dtype != library.xp.uint8 or not 3 <= len(array.shape) <= (3 if is_list else 4):
            raise UsageError(f"{name}: expected {_EXPECTED}, got {array.dtype} {list(array.shape)}")
        if len(array.shape) == 3:
            array = array[None, ...]
        groups.append(Group(array, layout or _layout(name, array.shape)))
        _require_pixels(name, groups[-1])
    return Frames(library, tuple(groups))


def _adopt(library: Library, value: Any, name: str) -> Array:
    if not hasattr(value, "__dlpack__") and not hasattr(value, "__cuda_array_interface__"):
        raise UsageError(f"{name}: expected a device array, got {type(value).__name__}")
    try:
        return library.adopt(value)
    except (RuntimeError, BufferError, TypeError, ValueError) as error:
        raise UsageError(
            f"{name}: cannot access the memory of {type(value).__name__} ({error}); "
            "copy it into an array of PyTorch or CuPy"
        ) from error


def _layout(name: str, shape: Sequence[int]) -> Layout:
    is_hwc, is_chw = shape[3] == 3, shape[1] == 3
    if is_hwc and is_chw:
        raise UsageError(
            f"{name}: {list(shape[1:])} may have its channels first or last; pass layout='hwc' or "
            "layout='chw'"
        )
    if not is_hwc and not is_chw:
        raise UsageError(f"{name}: expected three channels, got {list(shape[1:])}")
    return "hwc" if is_hwc else "chw"


def _require_pixels(name: str, group: Group) -> None:
    channels = group.pixels.shape[3 if group.layout == "hwc" else 1]
    if channels != 3 or group.count < 1 or min(group.hw) < 1:
        raise UsageError(
            f"{name}: expected at least one frame of at least one pixel and three channels, got "
            f"{list(group.pixels.shape)} as {group.layout}"
        )
