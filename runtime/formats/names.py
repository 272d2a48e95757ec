"""Names of result files, made from names of photos and classes, which may be anything."""

from __future__ import annotations

import hashlib
import os
import re

# File systems allow 255 bytes; a row, a suffix and a temporary file's mark go on top.
_MOST_BYTES = 150
_FORBIDDEN = set('/\\:*?"<>|')
# Devices on Windows, in every folder and with whatever suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.I | re.S)


def file_stem(name: str) -> str:
    """A name that is one part of a path on every system, the same for the same name.

    A name that needs no change keeps its form; another gets a mark of what it was, so that two
    names stay two.
    """
    kept = "".join("_" if c in _FORBIDDEN or not c.isprintable() else c for c in name)
    kept = kept.strip(". ")
    if _DEVICE.fullmatch(kept):
        kept = f"_{kept}"
    while len(os.fsencode(kept)) > _MOST_BYTES:
        kept = kept[:-1]
    if kept == name and kept:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept or 'unnamed'}-{mark}"
