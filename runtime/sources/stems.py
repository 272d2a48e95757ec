"""Unique names for output files, for any names of the inputs."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable

_FRAME = re.compile(r"(.*)-[0-9]{6,}", re.DOTALL)


class Stems:
    """Assigns stems; a duplicate gets a number appended.

    A video reserves all names "clip-000000" and following at once, so that an endless camera needs
    no memory for them. Names that differ only in case or Unicode normalization count as equal, as
    on some file systems.
    """

    def __init__(self) -> None:
        self._photos: set[str] = set()
        self._videos: set[str] = set()
        # Video stems that photos named like frames belong to.
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
        """A stem for all frames of a video, followed by "-" and a number of six or more digits."""
        free = self._first_free(stem or "video", "video", self._is_free_video)
        self._videos.add(_key(free))
        return free

    def _is_free_photo(self, key: str) -> bool:
        match = _FRAME.fullmatch(key)
        return key not in self._photos and (match is None or match[1] not in self._videos)

    def _is_free_video(self, key: str) -> bool:
        return key not in self._videos and key not in self._frames_of

    def _first_free(self, stem: str, group: str, is_free: Callable[[str], bool]) -> str:
        counter = group, _key(stem)
        for number in itertools.count(self._next.get(counter, 1)):
            candidate = stem if number == 1 else f"{stem}-{number}"
            if is_free(_key(candidate)):
                # Lower numbers stay taken: a million photos of one name take linear time.
                self._next[counter] = number + 1
                return candidate
        raise AssertionError("unreachable: the numbers do not end")


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem.casefold())
