"""The parent's handle of a child process that runs one artifact."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, ImageError, MaskportError
from runtime.artifacts.metadata import Artifact
from runtime.benchmarking.timings import Timing
from runtime.benchmarking.worker import OpenOptions, PhotoResult, serve
from runtime.closing import Closing

# Time for the child to end after its pipe is closed.
_JOIN_TIMEOUT_S = 5.0


class ArtifactProcess(Closing):
    """An artifact that is open in a process of its own.

    Args:
        options: how to open it.

    Raises:
        ArtifactError: it cannot be opened, or the process died.
        MaskportError: any error of opening it, with the file's name.
    """

    def __init__(self, options: OpenOptions) -> None:
        self._path = options.path
        # A spawned child does not inherit this process's memory, which would count as its own,
        # nor its thread pools, which do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=serve, args=(child_pipe, options), daemon=True)
        self._process.start()
        child_pipe.close()
        try:
            self.artifact: Artifact = self._receive()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def detect(self, photo: Path) -> PhotoResult:
        """Detections on one photo, untimed.

        Raises:
            ImageError: the photo cannot be used.
        """
        result: PhotoResult = self._request("detect", photo)
        return result

    def time(self, photos: Sequence[Path]) -> Timing:
        """One timed call."""
        timing: Timing = self._request("time", list(photos))
        return timing

    def stream(self, photos: Sequence[Path], batch_size: int) -> float:
        """Seconds for all photos, streamed."""
        seconds: float = self._request("stream", list(photos), batch_size)
        return seconds

    def peak_memory_bytes(self) -> int | None:
        """Peak resident memory of the process so far."""
        peak: int | None = self._request("memory")
        return peak

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(_JOIN_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _request(self, name: str, *arguments: object) -> Any:
        try:
            self._pipe.send((name, arguments))
        except OSError as error:
            raise self._died() from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            reply = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(reply, MaskportError):
            # The message of an ImageError names the photo, not the artifact.
            is_named = isinstance(reply, ImageError) or str(self._path) in str(reply)
            raise reply if is_named else type(reply)(f"{self._path}: {reply}")
        return reply

    def _died(self) -> ArtifactError:
        self._process.join(_JOIN_TIMEOUT_S)
        return ArtifactError(
            f"{self._path}: its process ended with exit code {self._process.exitcode}; a negative "
            "code is a signal, and -9 often means that memory ran out"
        )
