"""An ONNX file in ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, MissingDependencyError
from runtime.artifact import Artifact, from_metadata
from runtime.seal import require_sound, require_unbroken
from runtime.sessions.session import Answer, Feed


class OnnxRuntimeSession:
    """Runs on the CPU provider; `threads` None takes all cores."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError(
                "onnxruntime is not installed; pip install 'maskport[cpu]'"
            ) from error
        is_sealed = require_sound(path)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises a type of its own per status code
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot open it ({_brief(error)}); "
                "expected a file that `maskport export` wrote"
            ) from error
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            self._outputs = [output.name for output in self._session.get_outputs()]
        except UnicodeDecodeError as error:
            raise ArtifactError(
                f"{path}: damaged metadata (a text of it is not UTF-8); export it again"
            ) from error
        require_unbroken(path, is_sealed, metadata)
        self._artifact = from_metadata(path, metadata)

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest inside the file."""
        return self._artifact

    def run(self, feed: Feed) -> Answer:
        """Run once; ONNX Runtime allows calls from several threads."""
        if self._session is None:
            raise ArtifactError(f"{self._artifact.path}: the session is closed; open it again")
        try:
            values = self._session.run(None, dict(feed))
        except Exception as error:
            raise ArtifactError(
                f"{self._artifact.path}: ONNX Runtime failed ({_brief(error)})"
            ) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
