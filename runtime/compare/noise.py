"""How much rounding alone changes a model's results, and limits that allow for it.

The limits of `runtime.compare.limits` were measured on trained networks. Other weights may amplify
the same rounding: the eager run then differs from itself by more than those limits when only its
convolution library changes. The limits of such a model are multiples of that difference, on the
same photos. The limits of a quiet model stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from runtime.compare.differences import Differences, differences
from runtime.compare.limits import FP32_ONNX, Limit, Limits
from runtime.compare.matching import Comparison

# Correct files of five noisy models on 23 photos in all: each quantity's difference from eager over
# that of eager from itself, with other convolutions and with one thread, 220 quotients.
MEDIAN = Limit("multiple in the median", 3.0, "of 220 quotients the largest was 1.9")
P99 = Limit("multiple in the 99th percentile", 5.0, "of 220 quotients the largest was 3.6")
WORST = Limit(
    "multiple in the worst row",
    10.0,
    "of 220 quotients two were above 3 and one, 4.1, above 4: a maximum over a hundred rows is "
    "luck, and a tail that falls from 1 in 10 at 1.9 to 1 in 220 at 4.1 is at 1 in thousands at 10",
)
_NEAR_TIES_PER_PHOTO = Limit(
    "rows from near ties of a noisy model",
    5.0,
    "one photo has few rows: a fraction of them is less than the near ties that it may have",
)


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """Runs of one model that differ only in rounding: its *variants*, each over all photos.

    A statistic of the noise is the largest over the variants.
    """

    variants: tuple[tuple[Comparison, ...], ...]
    _differences: tuple[Mapping[str, Differences], ...]

    def of(self, quantity: str) -> list[Differences]:
        """The differences of one quantity in each variant; see `differences`."""
        return [by_name[quantity] for by_name in self._differences if quantity in by_name]

    def quantile(self, quantity: str, fraction: float) -> float:
        """Of one quantity; 0 where nothing was matched."""
        return max((each.quantile(fraction) for each in self.of(quantity)), default=0.0)

    def worst(self, quantity: str) -> float:
        """The largest difference of one quantity."""
        return self.quantile(quantity, 1.0)

    def __str__(self) -> str:
        parts = [f"{self.worst('box_px'):.2g} px", f"{self.worst('score'):.1e} in score"]
        if self.of("mask_probability"):
            parts.append(f"{self.worst('mask_probability'):.1e} in mask probability")
        return f"eager differs from itself by {', '.join(parts)} on this model"


def measure(variants: Sequence[Sequence[Comparison]]) -> Noise:
    """Collect the noise of a model.

    Args:
        variants: for each variant of the eager run its comparison with the eager run, by photo.
    """
    return Noise(tuple(map(tuple, variants)), tuple(map(differences, variants)))


def widened(base: Limits, noise: Noise) -> Limits:
    """Limits of one row for a model with this noise, never below the given ones.

    The noise of a decision is that of a row, so its epsilons have the same multiple.
    """
    eps = base.epsilons

    def wider(limit: Limit, quantity: str) -> Limit:
        value = WORST.value * noise.worst(quantity)
        reason = f"{WORST.value:g} times the largest difference of this model's own eager runs"
        return replace(limit, value=value, reason=reason) if value > limit.value else limit

    edge, logit = wider(eps.edge_relative, "edge_relative"), wider(eps.score_logit, "score_logit")
    mask = wider(eps.mask_probability, "mask_probability")
    box_px = wider(base.box_px, "box_px")
    keypoint_score = wider(base.keypoint_score, "keypoint_score")
    is_wide = mask.value > eps.mask_probability.value or edge.value > eps.edge_relative.value
    return replace(
        base,
        name=f"{base.name}, {noise}",
        score=wider(base.score, "score"),
        box_px=box_px,
        mask_probability=wider(base.mask_probability, "mask_probability"),
        mask_iou=_WIDE_MASK_IOU if is_wide else base.mask_iou,
        near_tie_floor=_NEAR_TIES_PER_PHOTO,
        keypoint_px=replace(base.keypoint_px, value=max(base.keypoint_px.value, box_px.value)),
        keypoint_score=keypoint_score,
        epsilons=replace(
            eps,
            score_logit=logit,
            edge_relative=edge,
            mask_probability=mask,
            # The noise of IoUs grows with that of edges, that of heat maps with that of peaks.
            nms_iou=_grown(eps.nms_iou, edge.value / eps.edge_relative.value),
            keypoint_logit=_grown(
                eps.keypoint_logit, keypoint_score.value / base.keypoint_score.value
            ),
        ),
    )


def _grown(limit: Limit, factor: float) -> Limit:
    return replace(limit, value=limit.value * factor)


_WIDE_MASK_IOU = Limit("mask IoU", 0.99, "of a noisy model's pixels one in a hundred is near 0.5")

# Of outputs that a framework recorded with other convolutions on another processor.
_RECORDED = (
    "twice the difference of detectron2 from itself: 2.6e-4 in score, 0.017 px, 5.1e-3 in mask "
    "probability; at least the limits of eager runs"
)
RECORDED = replace(
    FP32_ONNX,
    name="recorded outputs",
    score=Limit("score", 1e-3, _RECORDED),
    box_px=Limit("box, px", 0.05, _RECORDED),
    mask_probability=Limit("mask probability", 1e-2, _RECORDED),
    mask_iou=_WIDE_MASK_IOU,
    near_tie_floor=_NEAR_TIES_PER_PHOTO,
    keypoint_px=Limit("keypoint, px", 0.05, _RECORDED),
    keypoint_score=Limit("keypoint score", 2e-2, _RECORDED),
    keypoint_fraction=Limit("keypoints from near ties / keypoints", 1e-2, _RECORDED),
    epsilons=replace(
        FP32_ONNX.epsilons,
        nms_iou=Limit("NMS IoU over aspect", 1e-3, _RECORDED),
        score_logit=Limit("score logit", 1e-2, _RECORDED),
        edge_relative=Limit("box edge over longer side", 1e-3, _RECORDED),
        mask_probability=Limit("mask probability", 1e-2, _RECORDED),
        keypoint_logit=Limit("gap of two keypoint logits", 1e-2, _RECORDED),
    ),
)
