"""`DevicePredictor`: from frames to detections, all in device memory.

Legend: N frames, H x W canvas, in pixels.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self, Unpack

import numpy as np

from model.errors import ArtifactError, UsageError, image_named
from model.spec import ModelSpec
from runtime.artifacts.metadata import Artifact
from runtime.closing import Closing
from runtime.device.detections import DeviceDetections
from runtime.device.frames import ChannelOrder, Frames, read_frames
from runtime.device.library import Array
from runtime.device.resize import Layout, resize
from runtime.device.results import Placements, to_frames
from runtime.device.select import select
from runtime.device.workspace import Workspace, recently_used
from runtime.preprocessing.canvas import origin_yx, resized_hw, shared_canvas_hw
from runtime.selection import Selection, SelectionOptions
from runtime.sessions.device import Device
from runtime.sessions.open import CHECKPOINT_SUFFIXES, backend_of, require_no_cache

_MOST_STREAMS = 16


class DeviceSession(Protocol):
    """An opened network that reads and writes device memory.

    `TensorRTSession` and `TorchSession` implement it. Inputs and outputs are those of
    `runtime.sessions.session.Session`.
    """

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest of the file."""

    def on_device(
        self, inputs: Mapping[str, Any], stream: int | None = None
    ) -> AbstractContextManager[Mapping[str, Any]]:
        """Run once on the stream, without a copy to the host or a wait.

        Work that the block enqueues on the stream may read the outputs; later work must not.
        """

    def close(self) -> None:
        """Free the session's resources."""


def open_device_session(
    path: Path, device: str = "cuda", sha256: str | None = None, runtime_cache: Path | None = None
) -> DeviceSession:
    """Open an engine, or a checkpoint in PyTorch with static shapes.

    Args:
        path: an `.engine` or a checkpoint.
        device: "cuda" for the current GPU, "cuda:1", or, for a checkpoint, "cpu".
        sha256: expected hash of the file, or None.
        runtime_cache: kernel cache of a TensorRT-RTX engine.

    Raises:
        UsageError: a file that does not run on device arrays, or an unknown device.
        ArtifactError, CheckpointError, DeviceError, MissingDependencyError: see the sessions.
    """
    parsed = Device.parse(device)
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected an .engine or a checkpoint")
    name = backend_of(path)
    if name == "tensorrt":
        from runtime.sessions.tensorrt import TensorRTSession

        if parsed.type == "cpu":
            raise UsageError(f"device {device}: {path} is an engine for a GPU; use cuda")
        index = parsed.index if ":" in device else None
        return TensorRTSession(path, sha256, runtime_cache=runtime_cache, device_index=index)
    if name != "torch":
        raise UsageError(
            f"{path}: only .engine files and checkpoints ({', '.join(CHECKPOINT_SUFFIXES)}) take "
            "device arrays; run an .onnx with Predictor, or build an engine from it"
        )
    require_no_cache(path, runtime_cache)
    from runtime.sessions.torch import TorchSession

    return TorchSession.open(path, device=device, mode="static", sha256=sha256)


class DevicePredictor(Closing):
    """A network with its frames and results on one device.

    A call enqueues its work on the stream and returns; it copies nothing to the host and waits for
    nothing, except for a checkpoint in mode "eager". Safe to call from several threads and on
    several streams; each stream has its own buffers.

    Args:
        session: an opened network, `TensorRTSession` or `TorchSession`.

    Raises:
        UsageError: a model of other channels than RGB.
    """

    def __init__(self, session: DeviceSession) -> None:
        channels = session.artifact.spec.preprocess.channels
        if channels != 3:
            raise UsageError(
                f"{session.artifact.path}: takes photos of {channels} channels; frames on a device "
                "are RGB, use Predictor"
            )
        self._session = session
        self._workspaces: OrderedDict[tuple[object, ...], Workspace] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        device: str = "cuda",
        sha256: str | None = None,
        runtime_cache: str | Path | None = None,
    ) -> Self:
        """Open an engine or a checkpoint; see `runtime.device.predictor.open_device_session`."""
        cache = None if runtime_cache is None else Path(runtime_cache)
        return cls(open_device_session(Path(path), device, sha256, cache))

    @property
    def artifact(self) -> Artifact:
        """The opened file's spec and manifest."""
        return self._session.artifact

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self._session.artifact.spec

    def predict(
        self,
        frames: Any,
        stream: Any = None,
        *,
        layout: Layout | None = None,
        channel_order: ChannelOrder = "rgb",
        **options: Unpack[SelectionOptions],
    ) -> DeviceDetections:
        """Detect objects in one frame or several.

        The frames of a call share a canvas that holds the largest, as a batch of photos does in
        `Predictor.predict`; the results are those of that batch.

        Args:
            frames: see `runtime.device.frames.read_frames`; ready on the stream, and unchanged
                until it has read them.
            stream: a CUDA stream: an integer, an object of PyTorch or CuPy, or one with
                `__cuda_stream__`; None takes the current stream of the frames' library.
            layout: "hwc" or "chw"; needed only if the shape is ambiguous.
            channel_order: of the frames.
            options: as in `Predictor.predict`; rows that are not selected are not valid.

        Returns:
            Arrays of the frames' library; PyTorch's or CuPy's for frames of a third library.

        Raises:
            UsageError: invalid frames, stream or layout, more frames than the artifact's batch, or
                a selection that the model does not support.
            ImageError: a frame that the resize rule shrinks to nothing.
        """
        selection = Selection(**options)
        selection.check(self.spec)
        if channel_order not in ("rgb", "bgr") or layout not in (None, "hwc", "chw"):
            raise UsageError(
                "expected channel_order 'rgb' or 'bgr' and layout 'hwc' or 'chw', got "
                f"'{channel_order}' and '{layout}'"
            )
        batch = read_frames(frames, layout)
        like = batch.groups[0].pixels
        handle = batch.library.handle(like, stream)
        # The lock is held while work is enqueued, not while it runs.
        with self._lock, batch.library.on_stream(like, handle):
            workspace = self._workspace(batch, handle)
            canvas_hw, placements = self._placements(batch)
            inputs = self._inputs(batch, canvas_hw, placements, channel_order, workspace)
            with self._session.on_device(inputs, handle) as outputs:
                adopted = {name: batch.library.adopt(value) for name, value in outputs.items()}
                detections = to_frames(adopted, self.spec, placements, workspace)
                return select(detections, selection, workspace)

    def close(self) -> None:
        """Free the session and the buffers."""
        self._workspaces.clear()
        self._session.close()

    def _workspace(self, batch: Frames, handle: int | None) -> Workspace:
        import array_api_compat as compat

        like = batch.groups[0].pixels
        key = (batch.library.xp.__name__, str(compat.device(like)), handle)
        if key not in self._workspaces:
            self._workspaces[key] = Workspace(batch.library, like)
        return recently_used(self._workspaces, key, _MOST_STREAMS)

    def _placements(self, batch: Frames) -> tuple[tuple[int, int], Placements]:
        """The canvas, and the position of each frame on it."""
        fixed, spec = self.artifact.manifest.canvas_hw, self.spec.preprocess
        resized = []
        for index, hw in enumerate(batch.hws):
            with image_named(f"frame {index}"):
                resized.append(resized_hw(hw, spec, fixed))
        canvas_hw = fixed or shared_canvas_hw(resized, spec)
        origins = tuple(origin_yx(hw, canvas_hw, spec) for hw in resized)
        return canvas_hw, Placements(batch.hws, tuple(resized), origins)

    def _rows(self, frames: int) -> int:
        """Rows of the batch."""
        self.artifact.manifest.require_batch("frames", frames)
        return max(frames, self.artifact.manifest.batch_bounds[0])

    def _inputs(
        self,
        batch: Frames,
        canvas_hw: tuple[int, int],
        placements: Placements,
        channel_order: ChannelOrder,
        workspace: Workspace,
    ) -> dict[str, Array]:
        """The graph's inputs."""
        rows, spec = self._rows(len(placements.frames_hw)), self.spec.preprocess
        canvas = workspace.canvas(
            (rows, 3, *canvas_hw), (placements.resized_hw, placements.origins_yx)
        )
        first = 0
        for group in batch.groups:
            (height, width), (y, x) = placements.resized_hw[first], placements.origins_yx[first]
            planes = resize(
                group.pixels, group.layout, (height, width), spec, workspace, channel_order
            )
            canvas[first : first + group.count, :, y : y + height, x : x + width] = planes
            first += group.count

        def image_hw() -> list[np.ndarray[Any, Any]]:
            padding = [canvas_hw] * (rows - len(placements.resized_hw))
            return [np.array([*placements.resized_hw, *padding], np.float32)]

        (sizes,) = workspace.tables(("image_hw", placements, rows, canvas_hw), image_hw)
        return {"images": canvas, "image_hw": sizes}
