"""What a source hands out, one by one: a photo with its names, or the reason why it is none."""

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
        stem: for output files, without a suffix; no two items of one pass share it, not even on a
            file system that ignores case.
        image_id: of COCO's results, where a command assigns one.
    """

    name: str
    stem: str
    image_id: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True, eq=False)
class Item(ItemName):
    """One photo of a source, with its names.

    Attributes:
        photo: a path, which may still turn out to be unreadable when it is decoded; a frame,
            uint8 [h, w, 3] RGB, upright; or, where the source knows that there is none (a line of
            a list without a file, a video that breaks off), the error. It names the place in full.
            The source goes on with what comes next.
    """

    photo: Photo | ImageError


class Source(Protocol):
    """Photos in a fixed order. Every pass starts anew, except over standard input and cameras.

    Files are opened when they are reached, and closed when the pass ends, also when its iterator
    is closed before the end.
    """

    @property
    def count(self) -> int | None:
        """How many items a pass has; None where only the pass itself can tell."""
        ...

    def known(self) -> list[Item]:
        """Items that are known before any pass, with the stems that a pass gives them.

        All of them where `count` is a number. Behind standard input a pass may give other stems.
        """
        ...

    def __iter__(self) -> Iterator[Item]: ...
