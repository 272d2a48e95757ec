"""The parent's side of a child process that runs one artifact."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, ImageError, MaskportError
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.samples import Timing
from runtime.benchmarking.worker import Seen, Setting, serve
from runtime.closing import Closing

# How long a child may take to end once its pipe is closed.
_PATIENCE_S = 5.0


class Contestant(Closing):
    """An artifact that is open in a process of its own.

    Args:
        setting: how to open it.

    Raises:
        ArtifactError: it cannot be opened, or the process died.
        MaskportError: whatever opening it raises, with the file's name.
    """

    def __init__(self, setting: Setting) -> None:
        self._path = setting.path
        # Nothing of this process may count as the artifact's memory, and libraries with threads
        # do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, setting), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.artifact: Artifact = self._receive()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def see(self, photo: Path) -> Seen:
        """What it finds on one photo.

        Raises:
            ImageError: the photo cannot be used.
        """
        seen: Seen = self._ask("see", photo)
        return seen

    def time(self, photos: Sequence[Path]) -> Timing:
        """One timed call."""
        timing: Timing = self._ask("time", list(photos))
        return timing

    def stream(self, photos: Sequence[Path], batch_size: int) -> float:
        """Seconds for all photos, streamed."""
        seconds: float = self._ask("stream", list(photos), batch_size)
        return seconds

    def peak_memory_bytes(self) -> int | None:
        """The most resident memory that the process has held so far."""
        peak: int | None = self._ask("memory")
        return peak

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, request: str, *arguments: object) -> Any:
        try:
            self._pipe.send((request, arguments))
        except OSError as error:
            raise self._died() from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(answer, MaskportError):
            # An ImageError is about a photo, and names it.
            named = isinstance(answer, ImageError) or str(self._path) in str(answer)
            raise answer if named else type(answer)(f"{self._path}: {answer}")
        return answer

    def _died(self) -> ArtifactError:
        self._process.join(_PATIENCE_S)
        return ArtifactError(
            f"{self._path}: the process that runs it ended (exit code {self._process.exitcode}); "
            "negative is a signal, -9 often means that memory ran out"
        )
