"""The seal at the end of an exported file, and what else its bytes tell before a library reads it.

A damaged ONNX file may still open and give other masks, or fail inside the library. So the writer
appends a hash of all that comes before it, as one more metadata entry, which every reader of ONNX
accepts. Our reader compares it first. It detects corruption and edits, not tampering: whoever
forges a file can write the hash, too. Against that there is `Predictor.open(…, sha256=…)`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from model.errors import ArtifactError

SEAL_KEY = "maskport.seal"
_DIGEST_BYTES = 64  # in hex
_ENTRY = b"\x0a\x0d" + SEAL_KEY.encode() + b"\x12\x40"
# Field 14 of ModelProto, metadata_props; a repeated field may be appended to a file.
_HEAD = b"\x72" + bytes([len(_ENTRY) + _DIGEST_BYTES]) + _ENTRY
_SEAL_BYTES = len(_HEAD) + _DIGEST_BYTES
_CHUNK_BYTES = 1 << 20
# The key of an `external_data` entry that names the file, in every encoding of protocol buffers.
_LOCATION = b"location"
_LOCATION_KEY = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
_LONGEST_VARINTS = 20


def seal(path: Path) -> None:
    """Append the seal to an ONNX file that has none."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    with path.open("ab") as file:
        file.write(_HEAD + digest.hexdigest().encode())


def require_sound(path: Path, *, alone: bool = True, content: bytes | None = None) -> bool:
    """Read a file once, before any library does; answer whether it is sealed.

    A file without a seal is one of an earlier version, or was edited and stripped on purpose.

    Args:
        path: an ONNX file.
        alone: whether it must hold all its data itself, as what maskport writes does.
        content: its bytes, where they have been read.

    Raises:
        ArtifactError: it differs from what was sealed, takes data from other files, or cannot be
            read.
    """
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _SEAL_BYTES, 0))
            tail = file.read()
            is_sealed = tail[: len(_HEAD)] == _HEAD and len(tail) == _SEAL_BYTES
            file.seek(0)
            found = _digest(
                file, size - _SEAL_BYTES if is_sealed else size, path if alone else None
            )
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}); check permissions and disk"
        ) from error
    if is_sealed and found.encode() != tail[len(_HEAD) :]:
        raise ArtifactError(_changed(path))
    return is_sealed


def require_unbroken(path: Path, is_sealed: bool, keys: Collection[str]) -> None:
    """A seal that is not the end of its file seals nothing.

    Args:
        path: for the message.
        is_sealed: what `require_sound` answered.
        keys: of the file's metadata.

    Raises:
        ArtifactError: there is such a seal.
    """
    if SEAL_KEY in keys and not is_sealed:
        raise ArtifactError(_changed(path))


def _changed(path: Path) -> str:
    return (
        f"{path}: not the bytes that maskport wrote: damaged, or edited since; export it again "
        f"(after an edit on purpose: remove its metadata entry '{SEAL_KEY}')"
    )


def _digest(file: BinaryIO, size: int, alone: Path | None) -> str:
    """SHA-256 of the first `size` bytes; with `alone` none of them may name another file."""
    digest, left, before = hashlib.sha256(), size, b""
    while left > 0 and (chunk := file.read(min(_CHUNK_BYTES, left))):
        digest.update(chunk)
        left -= len(chunk)
        if alone is not None:
            _refuse_external_data(alone, before + chunk)
        before = (before + chunk)[-_LONGEST_VARINTS - len(_LOCATION) :]
    return digest.hexdigest()


def _refuse_external_data(path: Path, part: bytes) -> None:
    at = part.find(_LOCATION)
    while at >= 0:
        if _LOCATION_KEY.search(part[max(at - _LONGEST_VARINTS, 0) : at]):
            raise ArtifactError(
                f"{path}: takes tensors from another file; maskport writes all into one, and "
                "reads nothing else; not opened"
            )
        at = part.find(_LOCATION, at + 1)
