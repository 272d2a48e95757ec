"""`DevicePredictor`: frames in device memory in, detections in device memory out.

Legend: N frames, H x W canvas, in pixels.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np

from model.errors import ImageError, UsageError
from model.spec import ModelSpec
from runtime.artifacts.metadata import Artifact
from runtime.closing import Closing
from runtime.device.detections import DeviceDetections
from runtime.device.frames import ChannelOrder, Frames, read_frames
from runtime.device.library import Array
from runtime.device.resize import Layout, resize
from runtime.device.results import Places, to_frames
from runtime.device.select import select
from runtime.device.session import DeviceSession, open_device_session
from runtime.device.workspace import Workspace
from runtime.preprocessing.canvas import origin_yx, resized_hw, shared_canvas_hw
from runtime.selection import Selection, Wanted

_MOST_STREAMS = 16


class DevicePredictor(Closing):
    """A network with its frames and results on one device.

    A call copies nothing to the host and waits for nothing: it gives the stream its work and
    returns. Only a checkpoint in mode "eager" looks at its own data on the way. Safe to call from
    several threads and on several streams; each stream has buffers of its own.

    Args:
        session: an opened network; `TensorRTSession` or `TorchSession`.
    """

    def __init__(self, session: DeviceSession) -> None:
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
        """Open an engine or a checkpoint; see `runtime.device.session.open_device_session`."""
        cache = None if runtime_cache is None else Path(runtime_cache)
        return cls(open_device_session(Path(path), device, sha256, cache))

    @property
    def artifact(self) -> Artifact:
        """The opened file's spec and manifest."""
        return self._session.artifact

    @property
    def spec(self) -> ModelSpec:
        """What decides the numbers."""
        return self._session.artifact.spec

    def predict(
        self,
        frames: Any,
        stream: Any = None,
        *,
        layout: Layout | None = None,
        channel_order: ChannelOrder = "rgb",
        **wanted: Unpack[Wanted],
    ) -> DeviceDetections:
        """Detect on one frame or several.

        Frames of one call share a canvas that holds the largest, as photos of one batch do in
        `Predictor.predict`; the results are those of that batch.

        Args:
            frames: see `runtime.device.frames.read_frames`; ready on the stream, and kept until
                it has read them.
            stream: of CUDA: an integer, or an object of PyTorch, CuPy or `__cuda_stream__`; None
                takes the current stream of the frames' library.
            layout: "hwc" or "chw"; needed only where the shape leaves it open.
            channel_order: of the frames.
            wanted: as for `Predictor.predict`; rows that it does not keep are not valid.

        Returns:
            Arrays of the frames' library (PyTorch's or CuPy's for frames of a third one).

        Raises:
            UsageError: what is given is none of this, or more than the artifact's batch; a
                selection that the model cannot serve.
            ImageError: a frame that the resize rule leaves nothing of.
        """
        selection = Selection(**wanted)
        selection.check(self.spec)
        if channel_order not in ("rgb", "bgr") or layout not in (None, "hwc", "chw"):
            raise UsageError(
                "expected channel_order 'rgb' or 'bgr' and layout 'hwc' or 'chw', got "
                f"'{channel_order}' and '{layout}'"
            )
        given = read_frames(frames, layout)
        like = given.groups[0].pixels
        handle = given.library.handle(like, stream)
        # The lock is held while work is given, not while it is done.
        with self._lock, given.library.on_stream(like, handle):
            workspace = self._workspace(given, handle)
            canvas_hw, places = self._places(given)
            feed = self._feed(given, canvas_hw, places, channel_order, workspace)
            with self._session.on_device(feed, handle) as answer:
                adopted = {name: given.library.adopt(value) for name, value in answer.items()}
                found = to_frames(adopted, self.spec, places, workspace)
                return select(found, selection, workspace)

    def close(self) -> None:
        """Free the session and the buffers."""
        self._workspaces.clear()
        self._session.close()

    def _workspace(self, given: Frames, handle: int | None) -> Workspace:
        import array_api_compat as compat

        like = given.groups[0].pixels
        key = (given.library.xp.__name__, str(compat.device(like)), handle)
        if key not in self._workspaces:
            self._workspaces[key] = Workspace(given.library, like)
        self._workspaces.move_to_end(key)
        while len(self._workspaces) > _MOST_STREAMS:
            self._workspaces.popitem(last=False)
        return self._workspaces[key]

    def _places(self, given: Frames) -> tuple[tuple[int, int], Places]:
        """The canvas, and where each frame stands on it."""
        manifest, spec = self.artifact.manifest, self.spec.preprocess
        fixed = None
        if manifest.height is not None and manifest.width is not None:
            fixed = manifest.height, manifest.width
        resized = []
        for index, hw in enumerate(given.hws):
            try:
                resized.append(resized_hw(hw, spec, fixed))
            except ImageError as error:
                raise ImageError(f"frame {index}: {error}") from error
        canvas_hw = fixed or shared_canvas_hw(resized, spec)
        origins = tuple(origin_yx(hw, canvas_hw, spec) for hw in resized)
        return canvas_hw, Places(given.hws, tuple(resized), origins)

    def _rows(self, frames: int) -> int:
        """Rows of the batch."""
        least, most = self.artifact.manifest.batch_bounds
        if most is not None and frames > most:
            raise UsageError(
                f"frames: {frames} at once, and the artifact was exported for a batch of {most} at "
                f"most; give fewer, or export it with --batch {frames}"
            )
        return max(frames, least)

    def _feed(
        self,
        given: Frames,
        canvas_hw: tuple[int, int],
        places: Places,
        channel_order: ChannelOrder,
        workspace: Workspace,
    ) -> dict[str, Array]:
        """The graph's inputs."""
        rows, spec = self._rows(len(places.frames_hw)), self.spec.preprocess
        canvas = workspace.canvas((rows, 3, *canvas_hw), (places.resized_hw, places.origins_yx))
        first = 0
        for group in given.groups:
            (height, width), (y, x) = places.resized_hw[first], places.origins_yx[first]
            planes = resize(
                group.pixels, group.layout, (height, width), spec, workspace, channel_order
            )
            canvas[first : first + group.count, :, y : y + height, x : x + width] = planes
            first += group.count

        def image_hw() -> list[np.ndarray[Any, Any]]:
            filling = [canvas_hw] * (rows - len(places.resized_hw))
            return [np.array([*places.resized_hw, *filling], np.float32)]

        (sizes,) = workspace.tables(("image_hw", places, rows, canvas_hw), image_hw)
        return {"images": canvas, "image_hw": sizes}
