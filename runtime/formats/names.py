"""Valid file names from arbitrary names of photos and classes."""

from __future__ import annotations

import hashlib
import os
import re

# File systems allow 255 bytes, which must also hold a row, a suffix and a temporary name.
_MOST_BYTES = 150
_FORBIDDEN = set('/\\:*?"<>|')
# Devices on Windows, in every folder and with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.I | re.S)


def file_stem(name: str) -> str:
    """A valid file name on every system, always the same for the same name.

    A name that must be changed gets a hash of the original as suffix, so that different names stay
    different.
    """
    valid = "".join("_" if c in _FORBIDDEN or not c.isprintable() else c for c in name)
    valid = valid.strip(". ")
    if _DEVICE.fullmatch(valid):
        valid = f"_{valid}"
    while len(os.fsencode(valid)) > _MOST_BYTES:
        valid = valid[:-1]
    if valid == name and valid:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{valid or 'unnamed'}-{digest}"
