"""Text files from untrusted sources: tables and caches."""

from __future__ import annotations

from pathlib import Path

from model.errors import ArtifactError, in_brief


def read_text(path: Path, most_bytes: int, what: str, remedy: str) -> str:
    """The content of a UTF-8 file.

    Args:
        path: the file.
        most_bytes: size limit.
        what: the kind of file, for messages.
        remedy: what to do, for messages.

    Raises:
        ArtifactError: not a regular file (devices and pipes may block or never end), too large, not
            readable, or not UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            actual = "a folder" if path.is_dir() else "a device or a pipe"
            raise ArtifactError(f"{path}: expected a {what}, got {actual}; {remedy}")
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ArtifactError(
                f"{path}: larger than {most_bytes >> 20} MiB, the limit of a {what}; {remedy}"
            )
        return content.decode("utf-8")
    except (OSError, ValueError) as error:  # not UTF-8, or not a valid file name
        raise ArtifactError(
            f"{path}: not a readable {what} ({in_brief(error, 100)}); {remedy}"
        ) from error
