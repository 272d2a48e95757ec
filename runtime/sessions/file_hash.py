"""Check a file against a SHA-256 that comes from elsewhere, before anything parses it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model.errors import ArtifactError


def read_verified(path: Path, sha256: str | None = None) -> bytes:
    """Read a file once; the bytes that were hashed are the bytes that are returned.

    Args:
        path: the file.
        sha256: its expected hash, hexadecimal; None skips the check.

    Raises:
        ArtifactError: the file cannot be read, or its hash differs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error.strerror}); check permissions and disk"
        ) from error
    if sha256 is not None:
        compare_hash(path, hashlib.sha256(content).hexdigest(), sha256)
    return content


def require_hash(path: Path, sha256: str | None) -> None:
    """As `read_verified`, for a loader that reads the file itself.

    Raises:
        ArtifactError: the hash differs.
    """
    if sha256 is not None:
        with path.open("rb") as stream:
            compare_hash(path, hashlib.file_digest(stream, "sha256").hexdigest(), sha256)


def compare_hash(path: Path, actual: str, expected: str | None) -> None:
    """Compare two hashes of a file; None skips the check.

    Raises:
        ArtifactError: they differ.
    """
    if expected is not None and actual != expected.lower():
        raise ArtifactError(
            f"{path}: its SHA-256 {actual[:16]}… is not the expected {expected[:16]}…; not loaded"
        )
