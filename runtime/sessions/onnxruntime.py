"""An ONNX file in ONNX Runtime, on the CPU or on a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, DeviceError, MissingDependencyError, in_brief
from runtime.artifacts.checksum import require_sound, require_unbroken
from runtime.artifacts.metadata import Artifact, from_metadata
from runtime.sessions.device import Device
from runtime.sessions.session import Answer, Feed

_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
Provider = tuple[str, dict[str, str]]


class OnnxRuntimeSession:
    """An opened file.

    Args:
        path: the file.
        threads: of the CPU; None takes all cores.
        device: the CPU, or a GPU, which needs onnxruntime-gpu.
        tensorrt: on a GPU: let TensorRT build what it can of the graph.
        content: its bytes, where they have been read and checked; they are opened then, whatever
            stands at the path by now, and not held afterwards.

    Raises:
        ArtifactError: damaged, or not a file that maskport wrote.
        DeviceError: the provider of that device is not in this onnxruntime, or does not start; the
            CPU is never taken instead.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        device: Device = Device("cpu"),  # noqa: B008 - frozen
        tensorrt: bool = False,
        content: bytes | None = None,
    ) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime as ort
        except ImportError as error:
            extra = "cpu" if device.kind == "cpu" else "gpu"
            raise MissingDependencyError(
                f"onnxruntime is not installed; pip install 'maskport[{extra}]'"
            ) from error
        providers = _providers(device, tensorrt)
        _require_provider(providers[0][0], device, ort.get_available_providers())
        is_sealed = require_sound(path, content=content)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(
                str(path) if content is None else content, options, providers=providers
            )
        except Exception as error:  # ONNX Runtime raises a type of its own per status code
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot open it ({in_brief(error)}); "
                "expected a file that `maskport export` wrote"
            ) from error
        # It would go on with the CPU after a failure, and say so in a log only.
        self._session.disable_fallback()
        # For which alone it keeps what it was given.
        self._session._model_bytes = None
        if self._session.get_providers()[0] != providers[0][0]:
            raise DeviceError(
                f"device {device}: ONNX Runtime could not start its {providers[0][0]}; its "
                "libraries (CUDA, cuDNN, TensorRT) or the driver are missing or of another "
                "version; `maskport doctor` says what is there"
            )
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
        session = self._session
        if session is None:
            raise ArtifactError(f"{self._artifact.path}: the session is closed; open it again")
        try:
            values = session.run(None, dict(feed))
        except Exception as error:
            raise ArtifactError(
                f"{self._artifact.path}: ONNX Runtime failed ({in_brief(error)})"
            ) from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _providers(device: Device, tensorrt: bool) -> list[Provider]:
    """In order of preference; small shape arithmetic stays on the CPU at any rate."""
    if device.kind == "cpu":
        return [(_CPU, {})]
    place = {"device_id": str(device.index)}
    # TF32 keeps 10 bits of a product's factors; FP32 means FP32 here.
    found: list[Provider] = [(_CUDA, {**place, "use_tf32": "0"}), (_CPU, {})]
    return [(_TENSORRT, place), *found] if tensorrt else found


def _require_provider(wanted: str, device: Device, available: list[str]) -> None:
    if wanted not in available:
        raise DeviceError(
            f"device {device}: the installed onnxruntime has no {wanted} (it has "
            f"{', '.join(available)}); uninstall onnxruntime and pip install 'maskport[gpu]'"
        )
