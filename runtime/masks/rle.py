"""COCO's compressed run lengths, directly from a crop, without a mask of the image's size.

Runs go down the columns and start with background. The text is that of `rleToString` in COCO's
`maskApi.c`: from the fourth run on the difference to the run before the last, in groups of five
bits, low first, 0x20 marking that more follow, 48 added to give printable characters.
Byte-identical to `pycocotools.mask.encode`.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from model.arrays import Bool, Int64
from model.errors import ArtifactError

_GROUP_BITS = 5
# Seven groups hold any difference of two 32-bit runs.
_MAX_GROUPS = 7
_SIGN, _MORE, _FIRST_CHAR = 0x10, 0x20, 48


class Rle(TypedDict):
    """A binary mask in COCO's results format; `size` is [height, width] of the image."""

    size: list[int]
    counts: str


def encode(columns: Bool, x0_px: int, y0_px: int, image_hw: tuple[int, int]) -> Rle:
    """Encode a crop as run lengths of the whole image.

    Args:
        columns: bool [w, h], the transposed crop, inside the image.
        x0_px: First column of the crop in the image.
        y0_px: First row of the crop in the image.
        image_hw: Height and width of the image in pixels.

    Returns:
        The mask of the image, background outside the crop.
    """
    height, width = image_hw
    edges = _edges(columns, x0_px, y0_px, height)
    bounds = np.concatenate(((0,), edges, (height * width,)))
    counts = bounds[1:] - bounds[:-1]
    if edges.size and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _to_text(counts)}


def decode(rle: Rle) -> Bool:
    """The dense mask, bool [H, W].

    Raises:
        ArtifactError: The text is not in this format, or does not fill the image exactly.
    """
    height, width = rle["size"]
    counts = _checked_counts(rle)
    values = np.arange(counts.size) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def area(rle: Rle) -> int:
    """Number of foreground pixels.

    Raises:
        ArtifactError: As `decode`.
    """
    return int(_checked_counts(rle)[1::2].sum())


def _edges(columns: Bool, x0_px: int, y0_px: int, image_height: int) -> Int64:
    """Column-major positions where foreground starts and ends, in turn, strictly rising."""
    width, height = columns.shape
    if not columns.size:
        return np.empty(0, np.int64)
    change = np.empty((width, height + 1), np.bool_)
    change[:, 0] = columns[:, 0]
    np.not_equal(columns[:, 1:], columns[:, :-1], out=change[:, 1:-1])
    change[:, -1] = columns[:, -1]
    column, row = np.divmod(np.flatnonzero(change), height + 1)
    edges: Int64 = (column + x0_px) * image_height + (row + y0_px)
    if height == image_height:
        # A run that reaches the bottom of its column continues at the top of the next.
        joint = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate((joint, joint + 1)))
    return edges


def _to_text(counts: Int64) -> str:
    values = counts.copy()
    values[3:] -= counts[1:-2]
    shifts = np.arange(0, _GROUP_BITS * _MAX_GROUPS, _GROUP_BITS)
    shifted = values[:, None] >> shifts
    groups = shifted & (2**_GROUP_BITS - 1)
    higher = shifted >> _GROUP_BITS
    more = higher != -((groups & _SIGN) >> 4)
    needed = np.ones_like(more)
    needed[:, 1:] = more[:, :-1]
    chars = groups + _FIRST_CHAR + more * _MORE
    return bytes(chars[needed].astype(np.uint8)).decode("ascii")


def _checked_counts(rle: Rle) -> Int64:
    height, width = rle["size"]
    counts = _from_text(rle["counts"])
    if counts.sum() != height * width or (counts < 0).any():
        raise ArtifactError(
            f"run lengths: expected runs that fill {height} x {width} = {height * width} pixels, "
            f"got {counts.size} runs of {int(counts.sum())} pixels in all; the text is damaged"
        )
    return counts


def _from_text(text: str) -> Int64:
    raw = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - _FIRST_CHAR
    last = np.flatnonzero((raw & _MORE) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if raw.size == 0 or last.size == 0 or last[-1] != raw.size - 1 or _out_of_range(raw, length):
        raise ArtifactError(
            f"run lengths: expected COCO's compressed text, got {text[:20]!r}…; the text is damaged"
        )
    offset = np.arange(raw.size) - np.repeat(first, length)
    values = np.add.reduceat((raw & 31) << (_GROUP_BITS * offset), first)
    negative = (raw[last] & _SIGN) != 0
    values[negative] -= np.int64(1) << (_GROUP_BITS * length[negative])
    counts = values.copy()
    counts[1::2] = np.cumsum(values[1::2])
    counts[2::2] = np.cumsum(values[2::2])
    return counts


def _out_of_range(raw: Int64, length: Int64) -> bool:
    return bool((raw < 0).any() or (raw > 63).any() or (length > _MAX_GROUPS).any())
