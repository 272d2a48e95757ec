"""An ONNX file in ONNX Runtime, on the CPU or on a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, DeviceError, MissingDependencyError, in_brief
from runtime.artifacts.checksum import require_no_stale_checksum, verify_checksum
from runtime.artifacts.metadata import Artifact, from_metadata
from runtime.sessions.device import Device
from runtime.sessions.file_hash import read_verified
from runtime.sessions.session import Inputs, Outputs

_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
Provider = tuple[str, dict[str, str]]


class OnnxRuntimeSession:
    """An opened ONNX file.

    Args:
        path: the file.
        threads: CPU threads; None takes all cores.
        device: the CPU, or a GPU, which needs onnxruntime-gpu.
        tensorrt: on a GPU: build what TensorRT supports of the graph with it.
        sha256: expected hash of the file, or None.

    Raises:
        ArtifactError: the file is damaged, has another hash, or was not written by maskport.
        DeviceError: this onnxruntime lacks the device's provider, or the provider does not start;
            there is no fallback to the CPU.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        device: Device = Device("cpu"),  # noqa: B008 - frozen
        tensorrt: bool = False,
        sha256: str | None = None,
    ) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime as ort
        except ImportError as error:
            extra = "cpu" if device.type == "cpu" else "gpu"
            raise MissingDependencyError(
                f"onnxruntime is not installed; pip install 'maskport[{extra}]'"
            ) from error
        providers = _providers(device, tensorrt)
        _require_provider(providers[0][0], device, ort.get_available_providers())
        content = read_verified(path, sha256)
        has_checksum = verify_checksum(path, content=content)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = ort.InferenceSession(content, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises a type of its own per status code
            raise ArtifactError(
                f"{path}: ONNX Runtime cannot open it ({in_brief(error)}); "
                "expected a file that `maskport export` wrote"
            ) from error
        # Otherwise it switches to the CPU after a failure, and only its log reports that.
        self._session.disable_fallback()
        # It keeps the bytes for that fallback only.
        self._session._model_bytes = None
        if self._session.get_providers()[0] != providers[0][0]:
            raise DeviceError(
                f"device {device}: ONNX Runtime could not start its {providers[0][0]}; its "
                "libraries (CUDA, cuDNN, TensorRT) or the driver are missing or of another "
                "version; run `maskport doctor` to list them"
            )
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
            self._output_names = [output.name for output in self._session.get_outputs()]
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{path}: damaged metadata (not UTF-8); export it again") from error
        require_no_stale_checksum(path, has_checksum, metadata)
        self._artifact = from_metadata(path, metadata)

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest inside the file."""
        return self._artifact

    def run(self, inputs: Inputs) -> Outputs:
        """Run once; ONNX Runtime allows calls from several threads."""
        session = self._session
        if session is None:
            raise ArtifactError(f"{self._artifact.path}: the session is closed; open it again")
        try:
            values = session.run(None, dict(inputs))
        except Exception as error:
            raise ArtifactError(
                f"{self._artifact.path}: ONNX Runtime failed ({in_brief(error)}); "
                "if memory ran out, use a smaller batch or canvas"
            ) from error
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _providers(device: Device, tensorrt: bool) -> list[Provider]:
    """In order of preference; small shape arithmetic always stays on the CPU."""
    if device.type == "cpu":
        return [(_CPU, {})]
    gpu = {"device_id": str(device.index)}
    # TF32 has 10 mantissa bits; FP32 means FP32 here.
    providers: list[Provider] = [(_CUDA, {**gpu, "use_tf32": "0"}), (_CPU, {})]
    return [(_TENSORRT, gpu), *providers] if tensorrt else providers


def _require_provider(provider: str, device: Device, available: list[str]) -> None:
    if provider not in available:
        raise DeviceError(
            f"device {device}: the installed onnxruntime has no {provider} (it has "
            f"{', '.join(available)}); uninstall onnxruntime and pip install 'maskport[gpu]'"
        )
