"""The items of a source: a photo with its names, or the error that replaces it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from model.errors import ImageError
from runtime.sources.photos import Photo


@dataclass(frozen=True, slots=True, eq=False)
class ItemName:
    """The names of one photo of a source.

    Attributes:
        name: for messages and result files, "dir/a.jpg" or "clip.mp4#000123".
        stem: for output files, without a suffix; unique in one pass, also on a file system that
            ignores case.
        image_id: in COCO's results, if a command assigns one.
        sha256: of the photo's file, if a command resumes only with the same photo.
    """

    name: str
    stem: str
    image_id: int | None = field(default=None, kw_only=True)
    sha256: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True, eq=False)
class Item(ItemName):
    """One photo of a source, with its names.

    Attributes:
        photo: a path, which decoding may find unreadable; a frame, uint8 [h, w, 3] RGB, upright;
            or the error of a list entry without a file, or of a truncated video. After an error
            the source continues with the next item.
    """

    photo: Photo | ImageError


class Source(Protocol):
    """Photos in a fixed order. Every pass starts over, except on standard input and cameras.

    A pass opens each file when it reaches it, and closes it when the pass or its iterator ends.
    """

    @property
    def count(self) -> int | None:
        """Number of items; None if only a pass can count them."""
        ...

    def known(self) -> list[Item]:
        """Items that are known before a pass, with their stems; all of them if `count` is a number.

        The stems of items after standard input may differ in a pass.
        """
        ...

    def __iter__(self) -> Iterator[Item]: ...
