"""The files of the images, by the paths that tools write."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from model.errors import UsageError
from runtime.annotations.coco_file import ImageEntry
from runtime.annotations.ids import Id
from runtime.annotations.values import shown

# Label Studio puts eight digits before the names of uploaded files.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
_MOST_PARTS = 16


@dataclass(frozen=True, slots=True)
class PhotoFiles:
    """The photos that are there, by the id of their image; `notices` has a line for each oddity."""

    photos: Mapping[Id, Path]
    notices: tuple[str, ...]


def find_files(path: Path, images: Sequence[ImageEntry], folder: Path) -> PhotoFiles:
    """The photos of a folder that images name.

    A name is tried as it is, below the folder; then without its first folders, one after the
    other, down to its last part. Backslashes separate folders too. URLs, encoded names, Label
    Studio's prefixes and other Unicode forms are tried last. An absolute path is only tried by its
    parts: where it leads may be an older copy of the photos.

    Args:
        path: of the COCO file, for messages.
        images: of the file.
        folder: of the photos.

    Raises:
        UsageError: no folder, no photo in it, or several images have the same photo.
    """
    found: dict[Id, Path] = {}
    elsewhere = []
    for image in images:
        file = _file(folder, image.file_name)
        if file is None:
            continue
        found[image.id] = file
        if file != folder / image.file_name:
            elsewhere.append(image)
    if not found and not os.path.isdir(folder):
        raise UsageError(f"{folder}: no such folder; expected the folder of the labeled photos")
    if not found:
        raise UsageError(
            f"{folder}: has none of the {len(images)} labeled photos of {path}; expected for "
            f"instance {shown(images[0].file_name)}"
        )
    _require_own_files(path, found, folder)
    notices = []
    if len(found) < len(images):
        notices.append(
            f"{len(images) - len(found)} of {len(images)} labeled photos are not in {folder}; "
            "skipped"
        )
    if elsewhere:
        first = elsewhere[0]
        notices.append(
            f"{len(elsewhere)} of {len(found)} photos are not at the file's paths but were found "
            f"by parts of them (the file's {shown(first.file_name)} is {found[first.id]})"
        )
    return PhotoFiles(found, tuple(notices))


def _file(folder: Path, name: str) -> Path | None:
    for candidate in dict.fromkeys(_candidates(name)):
        if not Path(candidate).anchor and os.path.isfile(path := folder / candidate):
            return path
    return None


def _candidates(name: str) -> Iterator[str]:
    yield name
    slashed = name.replace("\\", "/")
    yield from _ends(slashed)
    for text in (*_url_paths(slashed), unquote(slashed)):
        yield from _ends(text)
        last = text.rsplit("/", 1)[-1]
        yield _UPLOAD_PREFIX.sub("", last, count=1)
        for form in ("NFC", "NFD"):
            yield from _ends(unicodedata.normalize(form, text))


def _ends(text: str) -> Iterator[str]:
    """A path, and its last parts, the longest first, none with a folder above this one."""
    yield text
    parts = [part for part in text.split("/") if part not in ("", ".")][-_MOST_PARTS:]
    for first in range(len(parts)):
        if ".." not in parts[first:]:
            yield "/".join(parts[first:])


def _url_paths(text: str) -> list[str]:
    """The path of a URL, and the file that Label Studio names in its query."""
    try:
        url = urlsplit(text)
    except ValueError:
        return []
    return [unquote(url.path), *parse_qs(url.query).get("d", [])]


def _require_own_files(path: Path, found: Mapping[Id, Path], folder: Path) -> None:
    counts = Counter(found.values())
    shared = [file for file, count in counts.items() if count > 1]
    if shared:
        ids = [one for one, file in found.items() if file == shared[0]]
        raise UsageError(
            f"{path}: {len(ids)} images are named {shared[0].name} (ids "
            f"{', '.join(map(repr, ids[:3]))}; {len(shared)} such photos); give every image its "
            f"own file, in folders below {folder} where names repeat"
        )
