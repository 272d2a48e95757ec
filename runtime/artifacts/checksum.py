"""The checksum at the end of an exported ONNX file, and other checks of its bytes.

A damaged ONNX file may still open and give other masks, or fail inside the library. So the writer
appends the SHA-256 of the file as one more metadata entry, which every reader of ONNX accepts, and
our reader compares it first. It detects corruption and edits, not tampering: a forger can write a
checksum, too. Against that there is `Predictor.open(…, sha256=…)`.
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

CHECKSUM_KEY = "maskport.seal"  # the key of existing files
_DIGEST_BYTES = 64  # in hex
_ENTRY = b"\x0a\x0d" + CHECKSUM_KEY.encode() + b"\x12\x40"
# Field 14 of ModelProto, metadata_props; a repeated field may be appended to a file.
_HEAD = b"\x72" + bytes([len(_ENTRY) + _DIGEST_BYTES]) + _ENTRY
_CHECKSUM_BYTES = len(_HEAD) + _DIGEST_BYTES
_CHUNK_BYTES = 1 << 20
# The key of an `external_data` entry that names the file, in every encoding of protocol buffers.
_LOCATION = b"location"
_LOCATION_KEY = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
_LONGEST_VARINTS = 20


def append_checksum(path: Path) -> None:
    """Append the checksum to an ONNX file that has none."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    with path.open("ab") as file:
        file.write(_HEAD + digest.hexdigest().encode())


def verify_checksum(path: Path, *, alone: bool = True, content: bytes | None = None) -> bool:
    """Check a file's bytes before any library reads them.

    Args:
        path: an ONNX file.
        alone: whether it must hold all its data itself, as files of maskport do.
        content: its bytes, if they have been read.

    Returns:
        Whether the file ends with a checksum. Files of earlier versions have none, and edited ones
        from which it was removed on purpose.

    Raises:
        ArtifactError: the checksum differs, the file takes data from other files, or it cannot be
            read.
    """
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - _CHECKSUM_BYTES, 0))
            tail = file.read()
            has_checksum = tail[: len(_HEAD)] == _HEAD and len(tail) == _CHECKSUM_BYTES
            file.seek(0)
            hashed = size - _CHECKSUM_BYTES if has_checksum else size
            digest = _digest(file, hashed, path if alone else None)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}); check permissions and disk"
        ) from error
    if has_checksum and digest.encode() != tail[len(_HEAD) :]:
        raise ArtifactError(_changed(path))
    return has_checksum


def require_no_stale_checksum(path: Path, has_checksum: bool, keys: Collection[str]) -> None:
    """Require that a checksum among the metadata is the one at the end of the file.

    Args:
        path: for the message.
        has_checksum: the result of `verify_checksum`.
        keys: of the file's metadata.

    Raises:
        ArtifactError: the checksum is elsewhere: the file was edited.
    """
    if CHECKSUM_KEY in keys and not has_checksum:
        raise ArtifactError(_changed(path))


def _changed(path: Path) -> str:
    return (
        f"{path}: not the bytes that maskport wrote: damaged or edited; export it again (after an "
        f"intended edit remove its metadata entry '{CHECKSUM_KEY}')"
    )


def _digest(file: BinaryIO, size: int, alone: Path | None) -> str:
    """SHA-256 of the first `size` bytes; with `alone` none of them may name another file."""
    digest, remaining, before = hashlib.sha256(), size, b""
    while remaining > 0 and (chunk := file.read(min(_CHUNK_BYTES, remaining))):
        digest.update(chunk)
        remaining -= len(chunk)
        if alone is not None:
            _refuse_external_data(alone, before + chunk)
        before = (before + chunk)[-_LONGEST_VARINTS - len(_LOCATION) :]
    return digest.hexdigest()


def _refuse_external_data(path: Path, part: bytes) -> None:
    at = part.find(_LOCATION)
    while at >= 0:
        if _LOCATION_KEY.search(part[max(at - _LONGEST_VARINTS, 0) : at]):
            raise ArtifactError(
                f"{path}: its tensors are in another file, which maskport never reads; not opened; "
                "save the model as one file"
            )
        at = part.find(_LOCATION, at + 1)
