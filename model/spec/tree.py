"""The whole model."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.spec.body import FpnSpec, MobileNetV3Spec, ModuleBodySpec, ResNetSpec, RoIStageSpec
from model.spec.checks import require
from model.spec.heads import BoxHeadSpec, ClassSpec, KeypointHeadSpec, MaskHeadSpec
from model.spec.input import PreprocessSpec
from model.spec.pooler import PoolerSpec
from model.spec.proposals import AnchorSpec, RpnSpec

BodySpec = ResNetSpec | MobileNetV3Spec | ModuleBodySpec


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The whole model.

    Without `fpn` the heads read the body's outputs (C4, DC5); `roi_stage` runs on every pooled
    RoI (C4).
    """

    dialect: str
    architecture: str
    body: BodySpec
    classes: ClassSpec
    fpn: FpnSpec | None = field(default_factory=FpnSpec)
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    anchors: AnchorSpec = field(default_factory=AnchorSpec)
    rpn: RpnSpec = field(default_factory=RpnSpec)
    roi_stage: RoIStageSpec | None = None
    box: BoxHeadSpec = field(default_factory=BoxHeadSpec)
    mask: MaskHeadSpec | None = None
    keypoint: KeypointHeadSpec | None = None

    def __post_init__(self) -> None:
        require(
            self.num_foreground >= 1, "classes: expected at least one class besides the background"
        )
        per_proposal = self.num_foreground if self.box.choice == "every-class" else 1
        most = self.rpn.post_nms * per_proposal
        require(
            self.box.detections <= most,
            f"box head: {self.box.detections} detections are more than {self.rpn.post_nms} "
            f"proposals of {per_proposal} classes can give ({most}); set --detections",
        )
        self._require_levels()
        self._require_roi_stage()

    def _require_levels(self) -> None:
        """Body, pyramid, anchors and poolers must have the same levels."""
        levels = len(self.body.outputs)
        expected = levels + (self.fpn is not None and self.fpn.extra_level == "pool")
        for pooler in self.poolers:
            require(
                bool(pooler.levels) or len(pooler.strides) == levels,
                f"pooler: expected a stride for each of {levels} levels, got {pooler.strides}",
            )
            require(
                pooler.pooled_levels[-1] < expected,
                f"pooler: expected levels from 0 to {expected - 1}, got {pooler.levels}",
            )
        require(
            len(self.anchors.sizes) == expected,
            f"anchors: expected sizes and ratios for {expected} levels, got "
            f"{len(self.anchors.sizes)}",
        )

    def _require_roi_stage(self) -> None:
        if self.roi_stage is None:
            require(
                bool(self.box.fc_widths or self.box.conv_widths or self.box.module),
                "box head: expected at least one of fc_widths or conv_widths",
            )
            return
        require(
            not self.box.fc_widths and not self.box.conv_widths,
            "box head: with a roi_stage its features are the stage's mean; expected no "
            "conv_widths and no fc_widths",
        )
        require(
            self.mask is None or self.mask.pooler == self.box.pooler,
            "mask head: with a roi_stage, expected the box head's pooler",
        )

    @property
    def poolers(self) -> tuple[PoolerSpec, ...]:
        """The poolers of the heads, the box head's first."""
        heads = (self.box, self.mask, self.keypoint)
        return tuple(head.pooler for head in heads if head is not None)

    @property
    def num_foreground(self) -> int:
        """Number of classes, without the background."""
        return len(self.classes.names) - (self.box.background == "first")

    @property
    def mask_side(self) -> int:
        """Side of the square masks, M; 0 for a model without masks."""
        if self.mask is None:
            return 0
        if self.mask.map_side:
            return self.mask.map_side
        stride = 1 if self.roi_stage is None else self.roi_stage.stride
        return 2 * -(-self.mask.pooler.output_size // stride)
