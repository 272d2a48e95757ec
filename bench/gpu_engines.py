"""The sessions of all installed libraries, for `bench/gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from export.engine import build_engine
from export.onnx import export_onnx
from export.tracing import GraphShape
from model.checkpoint import Checkpoint, SpecOptions
from model.errors import DeviceError, MissingDependencyError
from runtime.artifacts.metadata import Artifact, from_metadata
from runtime.cuda.driver import local_architecture
from runtime.sessions.session import Inputs, Outputs, Session
from runtime.sessions.tensorrt import TensorRTSession

Opener = Callable[[], Session]


def openers(
    checkpoint: Checkpoint, device: str, hw: tuple[int, int], largest_batch: int, folder: Path
) -> list[tuple[str, Opener]]:
    """Name and opener of each; an opener fails with one line if its library or GPU is missing."""
    span = (1, max(largest_batch // 2, 1), largest_batch) if largest_batch > 1 else None
    shape = GraphShape(None if span else 1, hw[0], hw[1], span)
    pre = checkpoint.spec.preprocess
    options = SpecOptions(short_side=pre.short_side, long_side=pre.long_side)
    graphs: dict[str, Path] = {}

    def graph(target: str) -> Path:
        if target not in graphs:
            path = folder / f"{target}.onnx"
            sizes = shape if target != "onnxruntime" else None
            export_onnx(checkpoint.path, path, options, sizes, check_photo=None, target=target)
            graphs[target] = path
        return graphs[target]

    def engine(target: str, cuda_graphs: bool) -> Session:
        gpu = [local_architecture()]
        (report,) = build_engine(graph(target), gpu=gpu if target == "tensorrt-rtx" else ())
        return TensorRTSession(report.path, cuda_graphs=cuda_graphs)

    sessions: list[tuple[str, Opener]] = []
    if device != "cpu":
        sessions += [
            ("ONNX Runtime CUDA, standard graph", lambda: CudaProvider(graph("onnxruntime"))),
            ("ONNX Runtime CUDA, native graph", lambda: CudaProvider(graph("tensorrt-rtx"))),
        ]
    for target in ("tensorrt-rtx", "tensorrt"):
        for graphs_on in (False, True):
            how = "CUDA graph" if graphs_on else "no CUDA graph"
            sessions.append((f"{target} engine, {how}", lambda t=target, g=graphs_on: engine(t, g)))  # type: ignore[misc]
    return sessions


class CudaProvider:
    """ONNX Runtime's CUDA provider, without a fallback to the CPU."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError("onnxruntime is not installed") from error
        if "CUDAExecutionProvider" not in ort.get_available_providers():
            raise DeviceError("this onnxruntime has no CUDA provider (onnxruntime-gpu has)")
        # TF32 is on by default there.
        providers = [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
        self._session = ort.InferenceSession(str(path), providers=providers)
        if self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise DeviceError("ONNX Runtime could not start its CUDA provider")
        self._names = [output.name for output in self._session.get_outputs()]
        pairs = self._session.get_modelmeta().custom_metadata_map
        self._artifact = replace(from_metadata(path, pairs), path=path)

    @property
    def artifact(self) -> Artifact:
        """The file's spec and manifest."""
        return self._artifact

    def run(self, inputs: Inputs) -> Outputs:
        """Run once."""
        return dict(zip(self._names, self._session.run(None, dict(inputs)), strict=True))

    def close(self) -> None:
        """Free the session."""
        del self._session
