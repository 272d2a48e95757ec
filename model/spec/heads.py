"""The heads that read pooled RoIs, and the class names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from model.spec.body import NormKind, require_groups
from model.spec.checks import ADDED, MOST, counts, in_unit_interval, not_negative, positive, require
from model.spec.pooler import PoolerSpec
from model.spec.proposals import MAX_LOG_RATIO, SizeClamp

PasteRule = Literal["integer", "float", "resize"]
COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BoxHeadSpec:
    """The box head: convolutions, then fully connected layers, then scores and deltas.

    Attributes:
        fc_widths: empty if a RoI stage computes the features (C4).
        norm: of the convolutions.
        scoring: "softmax" over the classes and the background, or a "sigmoid" for each class.
        choice: "every-class" makes every (proposal, class) pair a candidate; "best-class" only
            each proposal's best class, unless that is the background (Matterport).
        score_inclusive: whether a score equal to the threshold passes.
        size_clamp, max_log_ratio: see `RpnSpec`.
        to_image: transform of boxes to the original image: "scale"; "clip", scale and clip, empty
            boxes dropped (detectron2); "round", scale and round, empty boxes dropped (Matterport).
        candidates: maximum number of (proposal, class) pairs that reach NMS; the output
            `candidates_cut` is not 0 if that was too few.
        module: classes of the user's own head and predictor that the file contains; empty for the
            layers above.
    """

    pooler: PoolerSpec = field(default_factory=PoolerSpec)
    conv_widths: tuple[int, ...] = ()
    fc_widths: tuple[int, ...] = (1024, 1024)
    norm: NormKind = "batch_norm"
    norm_eps: float = 1e-5
    class_agnostic: bool = False
    background: Literal["first", "last"] = "first"
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    choice: Literal["every-class", "best-class"] = "every-class"
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    size_clamp: SizeClamp = "upper"
    score_threshold: float = 0.05
    score_inclusive: bool = False
    nms_iou: float = 0.5
    detections: int = 100
    min_size: float = 1e-2
    min_size_inclusive: bool = True
    to_image: Literal["scale", "clip", "round"] = "scale"
    candidates: int = 2000
    max_log_ratio: float = field(default=MAX_LOG_RATIO, metadata=ADDED)
    module: str = field(default="", metadata=ADDED)

    def __post_init__(self) -> None:
        require(
            1 <= self.detections <= self.candidates <= MOST,
            f"box head: expected 1 <= detections <= candidates <= {MOST}, got {self.detections} "
            f"and {self.candidates}; set --detections and --candidates",
        )
        in_unit_interval("box head", score_threshold=self.score_threshold, nms_iou=self.nms_iou)
        counts("box head", conv_widths=self.conv_widths, fc_widths=self.fc_widths)
        not_negative("box head", norm_eps=self.norm_eps, min_size=self.min_size)
        positive("box head", box_weights=self.box_weights, max_log_ratio=(self.max_log_ratio,))
        require_groups("box head", self.norm if self.conv_widths else "none", *self.conv_widths)
        require(
            self.choice == "every-class" or self.scoring == "softmax",
            "box head: choice 'best-class' needs scoring 'softmax'",
        )


@dataclass(frozen=True, slots=True)
class MaskHeadSpec:
    """The mask head and the paste rule.

    `paste` is "integer" (torchvision: pad one cell, enlarge the box, truncate it to int64),
    "float" (detectron2: sample at pixel centers inside the float box) or "resize" (Matterport:
    resize to the integer box).

    Attributes:
        dilation: of the 3x3 convolutions.
        map_side: side of a mask; 0 for twice the pooled side.
        module: classes of the user's own head or predictor that the file contains; empty for the
            layers above.
    """

    pooler: PoolerSpec = field(default_factory=lambda: PoolerSpec(output_size=14))
    conv_widths: tuple[int, ...] = (256, 256, 256, 256)
    deconv_width: int = 256
    norm: NormKind = "none"
    norm_eps: float = 1e-5
    class_agnostic: bool = False
    paste: PasteRule = "integer"
    threshold: float = 0.5
    threshold_inclusive: bool = False
    dilation: int = field(default=1, metadata=ADDED)
    map_side: int = field(default=0, metadata=ADDED)
    module: str = field(default="", metadata=ADDED)

    def __post_init__(self) -> None:
        counts(
            "mask head",
            conv_widths=self.conv_widths,
            deconv_width=self.deconv_width,
            dilation=self.dilation,
        )
        not_negative("mask head", map_side=self.map_side)
        not_negative("mask head", norm_eps=self.norm_eps)
        require_groups("mask head", self.norm, *self.conv_widths)
        require(
            0.0 < self.threshold < 1.0,
            f"mask head: threshold must be between 0 and 1, got {self.threshold}",
        )


@dataclass(frozen=True, slots=True)
class KeypointHeadSpec:
    """The keypoint head: one heatmap per keypoint, four times the pooled side.

    `score` of a keypoint: "logit", the heatmap's peak (torchvision), or "softmax", the peak's
    probability over all positions (detectron2). `map_side` and `module`: see `MaskHeadSpec`; a
    `map_side` of 0 is four times the pooled side.
    """

    pooler: PoolerSpec = field(default_factory=lambda: PoolerSpec(output_size=14))
    conv_widths: tuple[int, ...] = (512,) * 8
    names: tuple[str, ...] = COCO_KEYPOINTS
    score: Literal["logit", "softmax"] = "logit"
    map_side: int = field(default=0, metadata=ADDED)
    module: str = field(default="", metadata=ADDED)

    def __post_init__(self) -> None:
        counts("keypoint head", conv_widths=self.conv_widths)
        not_negative("keypoint head", map_side=self.map_side)
        require(len(self.conv_widths) >= 1, "keypoint head: expected at least one convolution")
        require(len(self.names) >= 1, "keypoint head: expected at least one keypoint name")

    @property
    def side(self) -> int:
        """Side of a heatmap."""
        return self.map_side or 4 * self.pooler.output_size


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """Class names and category ids by label.

    `names[0]` is the background if `BoxHeadSpec.background` is "first". `dataset_ids` is empty if
    every label is its own category id.
    """

    names: tuple[str, ...]
    dataset_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require(
            not self.dataset_ids or len(self.dataset_ids) == len(self.names),
            f"classes: expected one dataset id per name, got {len(self.dataset_ids)} ids and "
            f"{len(self.names)} names",
        )

    def dataset_id(self, label: int) -> int:
        """Category id of `label` in the dataset that the model was trained on."""
        return self.dataset_ids[label] if self.dataset_ids else label
