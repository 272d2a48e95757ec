"""Names for output files: no two alike, whatever the inputs are called."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable

_FRAME = re.compile(r"(.*)-[0-9]{6,}", re.DOTALL)


class Stems:
    """Hands out stems; one that is taken comes back with a number behind it.

    A video takes all names from "clip-000000" on at once, so that an endless camera does not fill
    the memory with them. Names that differ only in case, or in how Unicode writes a letter, count
    as the same: some file systems think so.
    """

    def __init__(self) -> None:
        self._photos: set[str] = set()
        self._videos: set[str] = set()
        # What photos named as frames would be frames of.
        self._frames_of: set[str] = set()
        self._next: dict[tuple[str, str], int] = {}

    def photo(self, stem: str) -> str:
        """A stem for one photo."""
        free = self._first_free(stem or "photo", "photo", self._is_free_photo)
        key = _key(free)
        self._photos.add(key)
        if (match := _FRAME.fullmatch(key)) is not None:
            self._frames_of.add(match[1])
        return free

    def video(self, stem: str) -> str:
        """A stem for all frames of a video; "-" and a number of six or more digits follow it."""
        free = self._first_free(stem or "video", "video", self._is_free_video)
        self._videos.add(_key(free))
        return free

    def _is_free_photo(self, key: str) -> bool:
        match = _FRAME.fullmatch(key)
        return key not in self._photos and (match is None or match[1] not in self._videos)

    def _is_free_video(self, key: str) -> bool:
        return key not in self._videos and key not in self._frames_of

    def _first_free(self, stem: str, kind: str, is_free: Callable[[str], bool]) -> str:
        place = kind, _key(stem)
        for number in itertools.count(self._next.get(place, 1)):
            candidate = stem if number == 1 else f"{stem}-{number}"
            if is_free(_key(candidate)):
                # Numbers below stay taken; a million photos of one name are numbered in one go.
                self._next[place] = number + 1
                return candidate
        raise AssertionError("unreachable: the numbers do not end")


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())
