"""The reference of dialects other than torchvision: our own network in eager PyTorch.

Recorded outputs and oracles test that the network agrees with each framework (docs/models.md).

Legend: D detections, P proposals before NMS, R after, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from export.parity.torchvision_reference import THRESHOLD_MARGIN, EagerRun, TorchvisionEager
from model.arrays import UInt8
from model.heads.selection import DetectionSelector
from model.live.source import AnyModel
from model.mask_rcnn import Outputs
from model.placement import Windows, image_windows
from model.spec import ModelSpec
from runtime.compare.attribution import EagerTrace
from runtime.compare.keypoint_attribution import KeypointTrace
from runtime.detections import Detections
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.preprocessing.canvas import Canvas, to_canvas


class NetworkEager:
    """The network of a checkpoint in PyTorch, with the runtime's own resize and paste.

    Args:
        checkpoint: of any dialect.
        canvas_hw: pad to this canvas, and shrink photos to fit it; None pads by the spec's rule.
    """

    def __init__(self, checkpoint: AnyModel, canvas_hw: tuple[int, int] | None = None) -> None:
        self.spec = checkpoint.spec
        self.model = checkpoint.build()
        self._canvas_hw = canvas_hw
        self._recorded: dict[str, Any] = {}
        for name in ("rpn", "box_head"):
            self.model.get_submodule(name).register_forward_hook(self._recorder(name))

    def run(self, photo: UInt8, score_threshold: float | None = None) -> EagerRun:
        """Detect on one uint8 [h, w, 3] RGB photo, with another score threshold if given."""
        return self.run_batch([photo], score_threshold)[0]

    def run_batch(
        self, photos: Sequence[UInt8], score_threshold: float | None = None
    ) -> list[EagerRun]:
        """Detect on several photos that share one canvas."""
        spec = self.spec
        if score_threshold is not None:
            spec = replace(spec, box=replace(spec.box, score_threshold=score_threshold))
        self.model.select.score_threshold.fill_(spec.box.score_threshold)
        canvas = to_canvas(photos, spec.preprocess, self._canvas_hw)
        with torch.inference_mode():
            image_hw = torch.from_numpy(canvas.image_hw)
            outputs = self.model(torch.from_numpy(canvas.images), image_hw)
            traces = self._traces(spec, canvas, image_hw)
        runs = []
        for row, photo in enumerate(photos):
            detections = _on_photo(outputs, row, spec, canvas, photo)
            traces[row]["keypoints"] = _keypoint_trace(outputs, row, len(detections))
            height, width = (int(side) for side in canvas.image_hw[row])
            scale = photo.shape[1] / width, photo.shape[0] / height
            trace = EagerTrace(spec=spec, canvas_scale_xy=scale, **traces[row])
            runs.append(EagerRun(detections, trace))
        return runs

    def run_in_double(self, photo: UInt8, score_threshold: float) -> Detections:
        """The same network in float64: its difference from `run` is the float32 rounding."""
        self.model.select.score_threshold.fill_(score_threshold)
        canvas = to_canvas([photo], self.spec.preprocess, self._canvas_hw)
        self.model.double()
        try:
            with torch.inference_mode():
                images, image_hw = map(torch.from_numpy, (canvas.images, canvas.image_hw))
                outputs = self.model(images.double(), image_hw.double())
        finally:
            self.model.float()
        return _on_photo(outputs, 0, self.spec, canvas, photo)

    def _recorder(self, name: str) -> Any:
        def hook(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._recorded[name] = inputs, output

        return hook

    def _traces(self, spec: ModelSpec, canvas: Canvas, image_hw: Tensor) -> list[dict[str, Any]]:
        """The boxes and scores that each photo's filters decided on, from the hooks' records."""
        (features, _), (proposals, valid, _) = self._recorded["rpn"]
        logits, deltas = self._recorded["box_head"][1]
        canvas_hw = canvas.images.shape[2], canvas.images.shape[3]
        photo_windows = image_windows(image_hw, canvas_hw, spec.preprocess.placement)
        boxes, scores = self.model.rpn.candidates(features, photo_windows)
        levels = torch.arange(boxes.shape[1]) // spec.rpn.pre_nms
        candidates = _candidates(spec, logits, deltas, proposals, valid, photo_windows)
        traces = []
        for row in range(len(boxes)):
            real = scores[row] > float("-inf")
            traces.append(
                {
                    "rpn_boxes": boxes[row, real].numpy(),
                    "rpn_scores": torch.sigmoid(scores[row, real]).numpy(),
                    "rpn_levels": levels[real].numpy(),
                    "proposals": proposals[row, valid[row]].numpy(),
                    **candidates[row],
                }
            )
        return traces


def _on_photo(
    outputs: Outputs, row: int, spec: ModelSpec, canvas: Canvas, photo: UInt8
) -> Detections:
    """The detections of one photo, in its own pixels."""
    arrays = {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in outputs._asdict().items()
        if value is not None
    }
    height, width = (int(side) for side in canvas.image_hw[row])
    photo_hw, origin = (photo.shape[0], photo.shape[1]), canvas.origin_yx[row]
    return from_raw(raw_rows(arrays, row), spec, photo_hw, (height, width), origin)


def _keypoint_trace(outputs: Outputs, row: int, rows: int) -> KeypointTrace | None:
    """The heat maps of one photo's keypoints; None if postprocessing dropped a row."""
    if outputs.keypoint_heatmaps is None or int(outputs.counts[row]) != rows:
        return None
    return KeypointTrace(
        outputs.keypoint_heatmaps[row, :rows].numpy(), outputs.boxes[row, :rows].numpy()
    )


def _candidates(
    spec: ModelSpec, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor, at: Windows
) -> list[dict[str, npt.NDArray[Any]]]:
    """Per image, every candidate with a score above the threshold or just below it."""
    uncut = replace(spec.box, candidates=valid.shape[1] * spec.num_foreground)
    selector = DetectionSelector(uncut, spec.num_foreground, spec.anchors.end_shift)
    best = selector.candidates(logits.float(), valid)
    boxes = at.clip(
        selector.decode(deltas.float(), proposals, best), "image", spec.anchors.end_shift
    )
    labels = best.group + selector.first_class
    near = best.scores > spec.box.score_threshold - THRESHOLD_MARGIN
    near &= best.scores >= 0  # invalid proposals have negative scores
    return [
        {
            "candidate_boxes": boxes[row, near[row]].numpy(),
            "candidate_scores": best.scores[row, near[row]].numpy(),
            "candidate_labels": labels[row, near[row]].numpy(),
        }
        for row in range(len(boxes))
    ]


def eager_reference(
    checkpoint: AnyModel, canvas_hw: tuple[int, int] | None = None
) -> TorchvisionEager | NetworkEager:
    """The reference: the live module itself, torchvision's own model, or our network."""
    if checkpoint.spec.dialect == "torchvision":
        return TorchvisionEager(checkpoint, canvas_hw)
    return NetworkEager(checkpoint, canvas_hw)
