"""A checkpoint in PyTorch: the eager network as a session, for parity and for trying weights.

The only place of the runtime that reaches into the network's code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from model.errors import ArtifactError, MissingDependencyError
from runtime.artifact import Artifact, Manifest
from runtime.sessions.session import Answer, Feed

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.mask_rcnn import MaskRCNN


class TorchSession:
    """The one forward of a checkpoint, eagerly, on the CPU."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model: MaskRCNN | None = checkpoint.build()
        manifest = Manifest("torch", "eager", "fp32", checkpoint.sha256)
        self._artifact = Artifact(checkpoint.path, checkpoint.spec, manifest)

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> Self:
        """Read a checkpoint with its dialect's defaults; `threads` None leaves PyTorch's setting.

        Raises:
            MissingDependencyError: PyTorch is not installed.
            CheckpointError: see `model.checkpoint.load`.
        """
        try:
            import torch

            from model.checkpoint import load
        except ImportError as error:
            raise MissingDependencyError(
                "running a checkpoint needs PyTorch; pip install 'maskport[export]', or export "
                "it to ONNX and run that"
            ) from error
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(load(path))

    @property
    def artifact(self) -> Artifact:
        """The checkpoint's spec."""
        return self._artifact

    def run(self, feed: Feed) -> Answer:
        """Run once."""
        import torch

        if self._model is None:
            raise ArtifactError(f"{self._artifact.path}: the session is closed; open it again")
        with torch.inference_mode():
            outputs = self._model(
                torch.from_numpy(feed["images"]), torch.from_numpy(feed["image_hw"])
            )
        named = outputs._asdict()
        return {name: value.numpy() for name, value in named.items() if value is not None}

    def close(self) -> None:
        """Free the network."""
        self._model = None
