"""Polygons and run lengths as compressed run lengths, rasterized by pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.errors import ArtifactError
from runtime.annotations.values import is_missing, number, shown, whole
from runtime.masks.rle import Rle, area

# pycocotools follows a polygon's edges pixel by pixel.
_LARGEST_COORDINATE_PX = 1e6
_POLYGON = 6


class UnusableError(ValueError):
    """A field that cannot be used; the message has the field, what was expected, and what it is."""

    def __init__(self, field: str, expected: str, got: object) -> None:
        super().__init__(f"{field}: expected {expected}, got {shown(got)}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of the photo.

    Attributes:
        rle: compressed run lengths.
        polygons: the rings [x, y, x, y, ...] that it was made of, if it was.
        is_nested_otherwise: whether the polygons were nested otherwise than COCO's.
    """

    rle: Rle
    polygons: Sequence[Sequence[float]] = ()
    is_nested_otherwise: bool = False


def has_mask(segmentation: object) -> bool:
    """Whether there is a segmentation at all: null, "", {} and lists of nothing are none."""
    if isinstance(segmentation, list):
        return any(one != [] for one in segmentation)
    return not is_missing(segmentation) and segmentation not in ("", {})


def read_mask(segmentation: object, size_hw: tuple[int, int]) -> Mask:
    """The mask of a segmentation.

    Args:
        segmentation: polygons, or run lengths, compressed or not; see `has_mask`.
        size_hw: height and width of the photo.

    Raises:
        UnusableError: neither, or of another size than the photo.
        MissingDependencyError: pycocotools is not installed.
    """
    if isinstance(segmentation, dict):
        return Mask(_read_rle(segmentation, size_hw))
    rings, is_nested_otherwise = _rings(segmentation)
    from pycocotools import mask

    height, width = size_hw
    rle = mask.merge(mask.frPyObjects(rings, height, width))
    return Mask(
        {"size": [height, width], "counts": rle["counts"].decode()}, rings, is_nested_otherwise
    )


def _rings(segmentation: object) -> tuple[list[list[float]], bool]:
    """Rings of six numbers and more, and whether they were nested otherwise.

    A flat list is one ring, and points may be pairs. Rings of fewer points beside others have no
    pixels. Alone they may be a box or a line, so they are refused.
    """
    expected = "polygons of three corners and more, or run lengths"
    if not isinstance(segmentation, list):
        raise UnusableError("segmentation", expected, segmentation)
    rings: list[Any] = segmentation
    is_flat = not any(isinstance(one, list) for one in rings)
    is_one_ring = is_flat or (len(rings) > 2 and all(map(_is_point, rings)))
    if is_one_ring:
        rings = [rings]
    pairs = [isinstance(ring, list) and ring != [] and all(map(_is_point, ring)) for ring in rings]
    rings = [
        [value for point in ring for value in point] if is_pairs else ring
        for ring, is_pairs in zip(rings, pairs, strict=True)
    ]
    read = [_coordinates(ring) for ring in rings]
    polygons = [ring for ring in read if ring is not None and len(ring) >= _POLYGON]
    if None in read or not polygons:
        raise UnusableError("segmentation", expected, segmentation)
    return polygons, is_one_ring or any(pairs)


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and None not in map(number, value)


def _coordinates(ring: object) -> list[float] | None:
    if not isinstance(ring, list) or len(ring) % 2:
        return None
    values = [number(value) for value in ring]
    inside = [v for v in values if v is not None and abs(v) <= _LARGEST_COORDINATE_PX]
    return inside if len(inside) == len(values) else None


def _read_rle(segmentation: dict[str, Any], size_hw: tuple[int, int]) -> Rle:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    sides = [whole(side) for side in size] if isinstance(size, list) else []
    if sides != [*size_hw]:
        transposed = " (it is [height, width])" if sides == [*size_hw[::-1]] else ""
        expected = f"the photo's size {[*size_hw]}{transposed}"
        raise UnusableError("segmentation size", expected, size)
    if isinstance(counts, list):
        return _compress(counts, size_hw)
    text = _without_bytes_prefix(counts) if isinstance(counts, str) else ""
    rle: Rle = {"size": [*size_hw], "counts": text}
    try:
        # pycocotools does not check that the runs fill the image.
        area(rle)
    except (ArtifactError, UnicodeError) as error:
        expected = f"run lengths of {size_hw[0]} x {size_hw[1]} pixels"
        raise UnusableError("segmentation counts", expected, counts) from error
    return rle


def _compress(counts: Sequence[Any], size_hw: tuple[int, int]) -> Rle:
    height, width = size_hw
    runs = [run for value in counts if (run := whole(value)) is not None and run >= 0]
    if len(runs) != len(counts) or sum(runs) != height * width:
        expected = f"run lengths of {height} x {width} pixels"
        raise UnusableError("segmentation counts", expected, counts)
    from pycocotools import mask

    rle = mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode()}


def _without_bytes_prefix(counts: str) -> str:
    """Run lengths that were written as Python's text of bytes, b'…'; ' is no run length."""
    if counts[:2] in ("b'", 'b"') and counts.endswith(counts[1]) and len(counts) > 3:
        return counts[2:-1].replace("\\\\", "\\")
    return counts
