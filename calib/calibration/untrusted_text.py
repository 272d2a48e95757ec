"""Text out of files that nobody vouches for: tables and caches."""

from __future__ import annotations

from pathlib import Path

from model.errors import ArtifactError, in_brief


def read_text(path: Path, most_bytes: int, what: str, remedy: str) -> str:
    """All of a file, in UTF-8.

    Args:
        path: the file.
        most_bytes: it may have.
        what: it should be, for messages.
        remedy: what to do, for messages.

    Raises:
        ArtifactError: a folder, a device or a pipe, which may never end or never begin; larger; not
            readable; or no UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or a pipe"
            raise ArtifactError(f"{path}: expected a {what}, got {kind}; {remedy}")
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ArtifactError(
                f"{path}: larger than {most_bytes >> 20} MiB; no {what} is; {remedy}"
            )
        return content.decode("utf-8")
    except (OSError, ValueError) as error:  # no UTF-8, or a name that no file can have
        raise ArtifactError(
            f"{path}: not a readable {what} ({in_brief(error, 100)}); {remedy}"
        ) from error
