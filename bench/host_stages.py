"""Time of the host's work on a photo, without decoding: ours against torchvision's.

Both start from the photo in memory and the network's outputs, cut to 20 detections, and end with
run lengths; the network itself is replaced by its recorded outputs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from runtime.artifacts.metadata import Artifact
from runtime.predictor import Predictor
from runtime.preprocessing.canvas import to_canvas
from runtime.sessions.session import Inputs, Outputs, Session
from runtime.sources.photos import decode

DETECTIONS = 20
UInt8 = npt.NDArray[np.uint8]
Texts = list[str]
_ROWS = ("boxes", "scores", "labels", "masks")


@dataclass(frozen=True, slots=True)
class HostStages:
    """Medians in milliseconds per photo.

    Attributes:
        photos: number of photos with enough detections.
        ours_ms: `predict` on the decoded photo and `rle`, without the network.
        preprocess_ms: part of `ours_ms`.
        results_ms: part of `ours_ms`.
        torchvision_ms: transform, paste, threshold, pycocotools' `encode`.
        transform_ms: part of `torchvision_ms`.
        decode_ms: a JPEG file to pixels.
        masks: number of compared masks.
        identical: number of byte-identical run lengths.
    """

    photos: int
    ours_ms: float
    preprocess_ms: float
    results_ms: float
    torchvision_ms: float
    transform_ms: float
    decode_ms: float
    masks: int
    identical: int

    @property
    def ratio(self) -> float:
        """Speedup of ours over torchvision."""
        return self.torchvision_ms / self.ours_ms


class _RecordedSession:
    """A session that returns recorded outputs."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.outputs: Outputs = {}

    def run(self, inputs: Inputs) -> Outputs:
        """The recorded outputs for any inputs."""
        return dict(self.outputs)

    def close(self) -> None:
        """Do nothing."""


def compare_host_stages(
    model: GeneralizedRCNN, session: Session, files: Sequence[Path], repeats: int
) -> HostStages:
    """Time both in turn on every photo with at least 20 detections; one thread each.

    Args:
        model: torchvision's, of the same weights and sizes.
        session: the exported file.
        files: JPEG photos.
        repeats: calls of each side per photo.

    Raises:
        SystemExit: no photo has 20 detections.
    """
    torch.set_num_threads(1)
    recorded = _RecordedSession(session.artifact)
    predictor = Predictor(recorded, on_uncertified="ignore")
    times: dict[str, list[float]] = {
        "ours": [], "preprocess": [], "results": [], "theirs": [], "transform": [], "decode": []
    }  # fmt: skip
    used = masks = identical = 0
    for file in files:
        pixels, seconds = _timed(lambda file=file: decode(file))  # type: ignore[misc]
        times["decode"].append(seconds)
        outputs = _cut(_run(session, pixels))
        if outputs is None:
            continue
        used += 1
        recorded.outputs = outputs
        ours, theirs = _Ours(predictor, pixels), _Theirs(model, pixels, outputs)
        texts, expected = ours(), theirs()
        masks += len(expected)
        identical += sum(a == b for a, b in zip(texts, expected, strict=True))
        for _ in range(repeats):
            before = dict(predictor.times.seconds)
            _, whole = _timed(ours)
            stages = {s: predictor.times.seconds[s] - before[s] for s in before}
            times["ours"].append(whole)
            times["preprocess"].append(stages["preprocess"])
            times["results"].append(whole - stages["preprocess"])
            times["theirs"].append(_timed(theirs)[1])
            times["transform"].append(theirs.transform_s)
    if not used:
        raise SystemExit(f"error: no photo has {DETECTIONS} detections; give more --photos")
    ms = {name: round(1e3 * statistics.median(spent), 2) for name, spent in times.items()}
    return HostStages(
        used, ms["ours"], ms["preprocess"], ms["results"], ms["theirs"], ms["transform"],
        ms["decode"], masks, identical,
    )  # fmt: skip


def _run(session: Session, pixels: UInt8) -> Outputs:
    canvas = to_canvas([pixels], session.artifact.spec.preprocess)
    return session.run({"images": canvas.images, "image_hw": canvas.image_hw})


def _cut(outputs: Outputs) -> Outputs | None:
    """The best 20 rows; the graph's rows are sorted by score."""
    if int(outputs["counts"][0]) < DETECTIONS:
        return None
    rows = {name: outputs[name][:, :DETECTIONS] for name in _ROWS}
    return {**outputs, **rows, "counts": np.full_like(outputs["counts"], DETECTIONS)}


class _Ours:
    def __init__(self, predictor: Predictor, pixels: UInt8) -> None:
        self._predictor = predictor
        self._pixels = pixels

    def __call__(self) -> Texts:
        return [run["counts"] for run in self._predictor.predict(self._pixels).rle()]


class _Theirs:
    """torchvision's transform and postprocess as its model calls them, then threshold and RLE."""

    def __init__(self, model: GeneralizedRCNN, pixels: UInt8, outputs: Outputs) -> None:
        self._transform = model.transform
        # Conversion to float is not timed: users do it in many ways.
        self._image = torch.tensor(pixels).permute(2, 0, 1).contiguous().float() / 255
        self._image_hw = (pixels.shape[0], pixels.shape[1])
        self._detections = {name: torch.from_numpy(np.array(outputs[name][0])) for name in _ROWS}
        self._detections["masks"] = self._detections["masks"][:, None]
        self.transform_s = 0.0

    def __call__(self) -> Texts:
        with torch.inference_mode():
            (batch, _), self.transform_s = _timed(lambda: self._transform([self._image]))
            results: list[dict[str, Tensor]] = self._transform.postprocess(
                [dict(self._detections)], batch.image_sizes, [self._image_hw]
            )
            return _encode((results[0]["masks"][:, 0] > 0.5).numpy())


def _encode(masks: npt.NDArray[np.bool_]) -> Texts:
    from pycocotools import mask as coco_mask

    encoded = [coco_mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]
    return [run["counts"].decode("ascii") for run in encoded]


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started
