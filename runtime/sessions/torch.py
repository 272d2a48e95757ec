"""A checkpoint in PyTorch: for parity checks, and for machines with PyTorch only.

The only module of the runtime that imports the network's code.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from model.errors import (
    ArtifactError,
    AssumptionWarning,
    DeviceError,
    MissingDependencyError,
    UsageError,
    require_one_of,
)
from runtime.artifacts.metadata import Artifact, Manifest
from runtime.sessions.file_hash import compare_hash, require_hash
from runtime.sessions.session import Inputs, Outputs

if TYPE_CHECKING:
    import torch

    from model.live.source import AnyModel
    from model.mask_rcnn import MaskRCNN
    from model.spec_options import SpecOptions

Mode = Literal["eager", "static", "compiled", "cuda-graph"]
_MOST_GRAPHS = 64  # input shapes with a compiled or captured graph
MODES: tuple[Mode, ...] = ("eager", "static", "compiled", "cuda-graph")


class TorchSession:
    """The forward pass of a checkpoint or a live model.

    Args:
        checkpoint: read by `model.live.source.open_model`.
        device: "cpu", "cuda" or "cuda:1".
        mode: "eager" runs torchvision's own RoIAlign and NMS; "static" the formulas of the
            `native` lowering, with `nms_open` as in an engine; "compiled" those through
            `torch.compile`; "cuda-graph" those captured once per input shape and replayed.
        half: run convolutions and matrix products in FP16 by autocast; boxes and scores stay FP32.

    Raises:
        DeviceError: PyTorch finds no such device.
        UsageError: an unknown mode, or one that needs a GPU on a CPU.
    """

    def __init__(
        self, checkpoint: AnyModel, device: str = "cpu", mode: Mode = "eager", half: bool = False
    ) -> None:
        import torch

        from model.families.assumptions import listing

        require_one_of("mode", mode, MODES)
        if mode == "cuda-graph" and not device.startswith("cuda"):
            raise UsageError(f"mode cuda-graph: expected a CUDA device, got {device}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise DeviceError(
                f"device {device}: PyTorch finds no CUDA GPU; run on a machine with one"
            )
        try:
            self._device, self._half = torch.device(device), half
        except RuntimeError as error:
            raise UsageError(f"device: expected cpu or cuda, got '{device}'") from error
        self._model: MaskRCNN | None = checkpoint.build().to(self._device)
        self._graphs: OrderedDict[tuple[int, ...], _CapturedGraph] = OrderedDict()
        self._lock = threading.Lock()
        self._mode = mode
        self._forward: Callable[..., Any] = self._prepare(self._model)
        precision = "fp16" if half else "fp32"
        lowering = "eager" if mode == "eager" else "native"
        manifest = Manifest("torch", lowering, precision, checkpoint.sha256)
        assumed = tuple(listing(checkpoint.assumptions))
        if assumed:
            lines = "".join(f"\nassumed: {line}" for line in assumed)
            warnings.warn(f"{checkpoint.path}:{lines}", AssumptionWarning, stacklevel=3)
        self._artifact = Artifact(checkpoint.path, checkpoint.spec, manifest, assumed)

    @classmethod
    def open(
        cls,
        path: Path,
        threads: int | None = None,
        device: str = "cpu",
        mode: Mode = "eager",
        sha256: str | None = None,
        options: SpecOptions | None = None,
        config: Path | None = None,
    ) -> Self:
        """Read a checkpoint; `threads` None keeps PyTorch's setting.

        Warns:
            AssumptionWarning: values that are in neither the file nor the options.

        Raises:
            MissingDependencyError: PyTorch is not installed.
            ArtifactError: the file's hash is not `sha256`.
            CheckpointError: see `model.checkpoint.load`.
        """
        try:
            import torch

            from model.checkpoint import load
        except ImportError as error:
            raise MissingDependencyError(
                "running a checkpoint needs PyTorch; pip install 'maskport[export]', or export "
                "it to ONNX"
            ) from error
        if threads is not None:
            torch.set_num_threads(threads)
        require_hash(path, sha256)
        checkpoint = load(path, options, config)
        # The file may have been exchanged since.
        compare_hash(path, checkpoint.sha256, sha256)
        return cls(checkpoint, device, mode)

    @classmethod
    def of_module(
        cls,
        model: object,
        threads: int | None = None,
        device: str = "cpu",
        mode: Mode = "eager",
        options: SpecOptions | None = None,
    ) -> Self:
        """Read a live module; see `model.live.read.read_live`.

        Raises:
            ModelError: a part of it that our network cannot run.
        """
        import torch

        from model.live.read import read_live

        if threads is not None:
            torch.set_num_threads(threads)
        return cls(read_live(model, options), device, mode)

    @property
    def artifact(self) -> Artifact:
        """The checkpoint's spec."""
        return self._artifact

    def run(self, inputs: Inputs) -> Outputs:
        """Run once."""
        import torch

        names = ("images", "image_hw")
        tensors = [torch.from_numpy(inputs[name]).to(self._device) for name in names]
        with self._graph_lock():
            outputs = self.run_on_device(*tensors)
            return {name: value.cpu().numpy() for name, value in outputs.items()}

    def run_on_device(self, images: torch.Tensor, image_hw: torch.Tensor) -> dict[str, Any]:
        """Run once on tensors of the session's device.

        Args:
            images: float32 [N, 3, H, W].
            image_hw: float32 [N, 2].

        Returns:
            the outputs by name; in mode "cuda-graph" the next run of that shape overwrites them.
        """
        import torch

        if self._model is None:
            raise ArtifactError(f"{self._artifact.path}: the session is closed; open it again")
        with (
            torch.inference_mode(),
            torch.autocast(
                self._device.type, torch.float16, enabled=self._half, cache_enabled=False
            ),
        ):
            if self._mode == "cuda-graph":
                outputs = self._replay(images, image_hw)
            else:
                outputs = self._forward(images, image_hw)
        named = outputs._asdict()
        return {name: value for name, value in named.items() if value is not None}

    @contextmanager
    def on_device(
        self, inputs: Mapping[str, Any], stream: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Run once on tensors of the session's device; only mode "eager" copies or waits.

        Work that the block enqueues on the stream may read the outputs. In mode "cuda-graph" later
        work must not: the next run overwrites them.

        Args:
            inputs: name → torch tensor, or another library's array with `__dlpack__`, float32.
            stream: the caller's CUDA stream handle; None takes PyTorch's current stream.

        Raises:
            UsageError: an array on another device, or a stream for a CPU.
        """
        # DLPack synchronizes an array with the stream that is current at the conversion.
        with self._stream(stream), self._graph_lock():
            tensors = {name: self._tensor(name, value) for name, value in inputs.items()}
            yield self.run_on_device(tensors["images"], tensors["image_hw"])

    def _graph_lock(self) -> AbstractContextManager[Any]:
        """A captured graph has one set of inputs and outputs, for one call at a time."""
        return self._lock if self._mode == "cuda-graph" else nullcontext()

    def _tensor(self, name: str, value: Any) -> torch.Tensor:
        import torch

        tensor: torch.Tensor = value if torch.is_tensor(value) else torch.from_dlpack(value)  # type: ignore[attr-defined]
        if tensor.device.type != self._device.type:
            raise UsageError(
                f"{name}: the session is on {self._device}, the array on {tensor.device}; open "
                "the session there, or move the frames"
            )
        return tensor

    def _stream(self, stream: int | None) -> AbstractContextManager[Any]:
        if stream is None:
            return nullcontext()
        if self._device.type != "cuda":
            raise UsageError(f"stream: device {self._device} has no streams; leave it out")
        import torch

        cuda: Any = torch.cuda
        if stream == cuda.current_stream(self._device).cuda_stream:
            return nullcontext()
        other: AbstractContextManager[Any] = cuda.stream(cuda.ExternalStream(stream, self._device))
        return other

    def close(self) -> None:
        """Free the network."""
        self._model = None
        self._graphs.clear()

    def _prepare(self, model: MaskRCNN) -> Callable[..., Any]:
        if self._mode == "eager":
            return model
        import torch

        from model.native.operators import StaticOperators

        model.use_operators(StaticOperators())
        if self._mode == "compiled":
            # A graph per shape: dynamic shapes only slow down a fixed canvas.
            config = torch._dynamo.config
            config.recompile_limit = max(config.recompile_limit, _MOST_GRAPHS)
            return torch.compile(model, fullgraph=True, dynamic=False)
        return model

    def _replay(self, images: torch.Tensor, image_hw: torch.Tensor) -> Any:
        key = tuple(images.shape)
        if key not in self._graphs:
            while len(self._graphs) >= _MOST_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[key] = _CapturedGraph(self._forward, images, image_hw)
        self._graphs.move_to_end(key)
        return self._graphs[key](images, image_hw)


class _CapturedGraph:
    """A CUDA graph of the network for one input shape, with its own inputs and outputs."""

    def __init__(
        self, forward: Callable[..., Any], images: torch.Tensor, image_hw: torch.Tensor
    ) -> None:
        import torch

        self._images, self._image_hw = images.clone(), image_hw.clone()
        with torch.cuda.device(images.device):
            self._capture(forward)

    def _capture(self, forward: Callable[..., Any]) -> None:
        import torch

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        # Libraries select kernels and allocate in their first runs, which must not be captured.
        with torch.cuda.stream(stream):
            for _ in range(3):
                forward(self._images, self._image_hw)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = forward(self._images, self._image_hw)

    def __call__(self, images: torch.Tensor, image_hw: torch.Tensor) -> Any:
        self._images.copy_(images)
        self._image_hw.copy_(image_hw)
        self._graph.replay()
        return self._outputs
