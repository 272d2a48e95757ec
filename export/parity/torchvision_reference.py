"""torchvision's eager model as the reference: its detections, and the inputs of its filters.

Legend: D detections, M mask side, J keypoints, S side of a heat map, P proposals before NMS, R
after, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops.boxes import clip_boxes_to_image

from model.arrays import Float32
from model.families.torchvision.reference import eager_model
from model.live.read import LiveModel
from model.live.source import AnyModel
from model.spec import ModelSpec
from runtime.compare.attribution import EagerTrace
from runtime.compare.keypoint_attribution import KeypointTrace
from runtime.detections import Detections
from runtime.preprocessing.canvas import resized_hw

# Candidates this far below the score threshold are recorded too: rounding could lift them over it.
THRESHOLD_MARGIN = 1e-3
# torchvision's `batched_nms` shifts boxes by class for up to this many boxes on a CPU.
_CLASS_SHIFT_UP_TO = 1000


@dataclass(frozen=True, slots=True, eq=False)
class EagerDetections:
    """torchvision's detections, with its own mask pasting, in original-image pixels.

    boxes float32 [D, 4] xyxy; scores float32 [D]; labels int64 [D]; mask_probs float32
    [D, M, M], or None for a box-only model; packed_masks the pasted bool [D, H, W] as bits;
    keypoints float32 [D, J, 3], x, y and score, or None for a model without them.
    """

    boxes: Float32
    scores: Float32
    labels: npt.NDArray[np.int64]
    mask_probs: Float32 | None
    packed_masks: npt.NDArray[np.uint8] | None
    image_hw: tuple[int, int]
    keypoints: Float32 | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def masks(self) -> npt.NDArray[np.bool_] | None:
        """The pasted masks, bool [D, H, W]."""
        if self.packed_masks is None:
            return None
        # Stored as bits, because a run over many photos keeps every result.
        bits = np.unpackbits(self.packed_masks, axis=-1, count=self.image_hw[1])
        return bits.view(np.bool_)

    def rle(self) -> Sequence[Mapping[str, object]]:
        """COCO RLE of the pasted masks, by pycocotools."""
        if self.masks is None:
            return []
        from pycocotools import mask as coco_mask

        encoded = [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in self.masks]
        return [{"size": e["size"], "counts": e["counts"].decode()} for e in encoded]


@dataclass(frozen=True, slots=True, eq=False)
class EagerRun:
    """One photo through the eager model."""

    detections: EagerDetections | Detections
    trace: EagerTrace


class TorchvisionEager:
    """torchvision's own model of a checkpoint, step by step.

    Args:
        checkpoint: of the torchvision dialect, or a live model, whose own module runs.
        canvas_hw: pad to this canvas, and shrink photos to fit it; None pads as torchvision does.
        model: of torchvision's builders with the same weights; None builds one from the spec.
    """

    def __init__(
        self,
        checkpoint: AnyModel,
        canvas_hw: tuple[int, int] | None = None,
        model: GeneralizedRCNN | None = None,
    ) -> None:
        self.spec = checkpoint.spec
        if isinstance(checkpoint, LiveModel):
            model = model or checkpoint.reference
        else:
            model = model or eager_model(checkpoint.spec, checkpoint.original)
        self.model = model
        self._canvas_hw = canvas_hw

    def run(self, photo: npt.NDArray[np.uint8], score_threshold: float | None = None) -> EagerRun:
        """Detect on one uint8 [h, w, C] photo, with another score threshold if given."""
        return self.run_batch([photo], score_threshold)[0]

    def run_batch(
        self, photos: Sequence[npt.NDArray[np.uint8]], score_threshold: float | None = None
    ) -> list[EagerRun]:
        """Detect on several photos that share one canvas, as the eager model batches them."""
        spec = self.spec
        if score_threshold is not None:
            spec = replace(spec, box=replace(spec.box, score_threshold=score_threshold))
        self.model.roi_heads.score_thresh = spec.box.score_threshold
        tensors = [torch.tensor(photo).permute(2, 0, 1).float() / 255 for photo in photos]
        with torch.inference_mode():
            batch = self._batch(tensors)
            return _run(self.model, spec, [photo.shape[:2] for photo in photos], batch)

    def _batch(self, photos: list[Tensor]) -> ImageList:
        if self._canvas_hw is None:
            images, _ = self.model.transform(photos)
            return images
        canvas = photos[0].new_zeros(len(photos), len(photos[0]), *self._canvas_hw)
        sizes = []
        for row, photo in enumerate(photos):
            hw = resized_hw((photo.shape[1], photo.shape[2]), self.spec.preprocess, self._canvas_hw)
            normalized = self.model.transform.normalize(photo)
            canvas[row, :, : hw[0], : hw[1]] = interpolate(normalized[None], hw, mode="bilinear")[0]
            sizes.append(hw)
        return ImageList(canvas, sizes)


def _run(
    model: GeneralizedRCNN, spec: ModelSpec, photo_hws: list[tuple[int, int]], images: ImageList
) -> list[EagerRun]:
    features = model.backbone(images.tensors)
    if isinstance(features, Tensor):
        features = {"0": features}
    proposals, _ = model.rpn(images, features)
    with _outputs_of(model.roi_heads, "box_predictor", "keypoint_predictor") as outputs:
        detections, _ = model.roi_heads(features, proposals, images.image_sizes)
    predicted, heatmaps = outputs["box_predictor"], outputs["keypoint_predictor"]
    rpn = _rpn_inputs(model, images, features)
    candidates = _candidates(model, spec, proposals, predicted, images.image_sizes)
    keypoints = _keypoint_traces(detections, heatmaps)
    finished = model.transform.postprocess(
        [dict(each) for each in detections], images.image_sizes, photo_hws
    )
    return [
        EagerRun(
            _detections(finished[row], detections[row], spec, photo_hw),
            EagerTrace(
                spec=spec,
                canvas_scale_xy=(photo_hw[1] / resized[1], photo_hw[0] / resized[0]),
                proposals=proposals[row].numpy(),
                class_shift_up_to=_CLASS_SHIFT_UP_TO,
                keypoints=keypoints[row],
                **rpn[row],
                **candidates[row],
            ),
        )
        for row, (photo_hw, resized) in enumerate(zip(photo_hws, images.image_sizes, strict=True))
    ]


@contextmanager
def _outputs_of(module: nn.Module, *names: str) -> Iterator[dict[str, Any]]:
    """Record the outputs of the named submodules during one run; None for an absent one."""
    outputs: dict[str, Any] = dict.fromkeys(names)

    def recorder(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: outputs.update({name: output})

    parts = {name: getattr(module, name, None) for name in names}
    hooks = [p.register_forward_hook(recorder(n)) for n, p in parts.items() if p is not None]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _keypoint_traces(
    detections: list[dict[str, Tensor]], heatmaps: Tensor | None
) -> list[KeypointTrace | None]:
    """Per image, heat maps and their boxes in canvas pixels."""
    if heatmaps is None:
        return [None] * len(detections)
    boxes = [image["boxes"] for image in detections]
    maps = torch.split(heatmaps, [len(b) for b in boxes])
    return [KeypointTrace(m.numpy(), b.numpy()) for m, b in zip(maps, boxes, strict=True)]


def _detections(
    finished: dict[str, Tensor], on_canvas: dict[str, Tensor], spec: ModelSpec, hw: tuple[int, int]
) -> EagerDetections:
    has_masks = spec.mask is not None
    return EagerDetections(
        finished["boxes"].numpy(),
        finished["scores"].numpy(),
        finished["labels"].numpy(),
        on_canvas["masks"][:, 0].numpy() if has_masks else None,
        _pack(finished["masks"], spec.mask.threshold) if spec.mask is not None else None,
        hw,
        _keypoints(finished) if spec.keypoint is not None else None,
    )


def _keypoints(finished: dict[str, Tensor]) -> Float32:
    """x, y and score (torchvision's third value is a constant 1): float32 [D, J, 3]."""
    xy, scores = finished["keypoints"][..., :2], finished["keypoints_scores"]
    keypoints: Float32 = torch.cat((xy, scores[..., None]), dim=2).numpy()
    return keypoints


def _pack(masks: Tensor, threshold: float) -> npt.NDArray[np.uint8]:
    """Float32 [D, 1, H, W] probabilities to thresholded bits."""
    return np.packbits((masks[:, 0] > threshold).numpy(), axis=-1)


def _rpn_inputs(
    model: GeneralizedRCNN, images: ImageList, features: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """The input of the RPN's filters, per image, by torchvision's own methods."""
    rpn, levels = model.rpn, list(features.values())
    objectness, deltas = rpn.head(levels)
    anchors = rpn.anchor_generator(images, levels)
    counts = [o[0].numel() for o in objectness]
    objectness, deltas = concat_box_prediction_layers(objectness, deltas)
    boxes = rpn.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)
    logits = objectness.view(len(anchors), -1)
    best = rpn._get_top_n_idx(logits, counts)
    level = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return [
        {
            "rpn_boxes": clip_boxes_to_image(boxes[row, top], resized).numpy(),
            "rpn_scores": torch.sigmoid(logits[row, top]).numpy(),
            "rpn_levels": level[top].numpy(),
        }
        for row, (top, resized) in enumerate(zip(best, images.image_sizes, strict=True))
    ]


def _candidates(
    model: GeneralizedRCNN,
    spec: ModelSpec,
    proposals: list[Tensor],
    predicted: tuple[Tensor, Tensor],
    resized: list[tuple[int, int]],
) -> list[dict[str, Any]]:
    """Per image, every (proposal, class) with a score above the threshold or just below it."""
    logits, deltas = predicted
    counts = [len(p) for p in proposals]
    decoded = model.roi_heads.box_coder.decode(deltas, proposals)  # [R, classes, 4]
    boxes = torch.split(decoded, counts)
    scores = torch.split(torch.softmax(logits, dim=-1), counts)
    return [
        _candidates_of_image(clip_boxes_to_image(b, hw), s, spec.box.score_threshold)
        for b, s, hw in zip(boxes, scores, resized, strict=True)
    ]


def _candidates_of_image(boxes: Tensor, scores: Tensor, threshold: float) -> dict[str, Any]:
    row, label = torch.where(scores > threshold - THRESHOLD_MARGIN)
    row, label = row[label > 0], label[label > 0]
    return {
        "candidate_boxes": boxes[row, label].numpy(),
        "candidate_scores": scores[row, label].numpy(),
        "candidate_labels": label.numpy(),
    }
