"""Matterport's Mask R-CNN for Keras: `.h5` weights of its ResNet-50 and ResNet-101 models.

Follows the published code: `mrcnn/model.py`, `mrcnn/utils.py`, `mrcnn/config.py`. Boxes end a
pixel early and are measured from corner to corner of a square canvas.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from model.errors import UsageError
from model.families import coco
from model.families.assumptions import unknown_fields
from model.families.dialect import Reading, Source
from model.families.matterport.tensors import NORM_EPS, layer_names, network_layout
from model.families.shapes import Shapes
from model.spec import (
    AnchorSpec,
    BoxHeadSpec,
    ClassSpec,
    FpnSpec,
    MaskHeadSpec,
    ModelSpec,
    PoolerSpec,
    PreprocessSpec,
    ResNetSpec,
    RpnSpec,
)

_STAGES = (2, 3, 4, 5)
_STRIDES = (4, 8, 16, 32)
_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
# Height / width, in the order of RPN_ANCHOR_RATIOS 0.5, 1, 2, which are width / height.
_RATIOS = (2.0, 1.0, 0.5)
_SHORT_SIDE, _LONG_SIDE = 800, 1024
# RPN_BBOX_STD_DEV and BBOX_STD_DEV, 0.1 and 0.2, as divisors.
_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
_COCO_CLASSES = 81
_LAYERS = {
    "body.conv1": "conv1",
    "body.bn1": "bn_conv1",
    "rpn.head.conv.0.0": "rpn_conv_shared",
    "rpn.head.cls_logits": "rpn_class_raw",
    "rpn.head.bbox_pred": "rpn_bbox_pred",
    "box_head.trunk.fc6": "mrcnn_class_conv1",
    "box_head.trunk.fc7": "mrcnn_class_conv2",
    "box_head.cls_score": "mrcnn_class_logits",
    "box_head.bbox_pred": "mrcnn_bbox_fc",
    "mask_head.predictor.conv5_mask": "mrcnn_mask_deconv",
    "mask_head.predictor.mask_fcn_logits": "mrcnn_mask",
}
_ANCHORS = ("anchors.sizes", "anchors.ratios")
# What Matterport's code fixes.
_FIXED = (
    "preprocess.channel_order", "preprocess.std", "preprocess.size_divisor", "preprocess.fixed_hw",
    "body.stride_in_1x1", "body.*dilations", "*.norm_eps", "fpn.*", "anchors.offset",
    "anchors.cells", "rpn.min_size", "rpn.score_threshold", "*.max_log_ratio", "*.pooler.aligned",
    "*.pooler.sampling_ratio", "*.pooler.strides", "*.pooler.levels", "*.pooler.canonical_*",
    "*.pooler.outer_eps", "*.pooler.kind", "box.scoring", "mask.dilation",
)  # fmt: skip
_DEFAULTS = (
    "assumed of Matterport's Config: IMAGE_RESIZE_MODE square, no IMAGE_MIN_SCALE, "
    "RPN_ANCHOR_STRIDE 1"
)
_BLOCK = re.compile(r"body\.layer(\d)\.(\d+)\.(?:(conv|bn)([123])|downsample\.([01]))")
_LATERAL = re.compile(r"fpn\.(inner|layer)_blocks\.(\d)\.0")
_MASK = re.compile(r"mask_head\.convs\.(\d+)\.([01])")
_NORM_VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


@dataclass(frozen=True, slots=True)
class MatterportDialect:
    """See the module docstring; implements `Dialect`."""

    name: str = "matterport"
    landmark: str = "mrcnn_class_logits/kernel"
    config_names: tuple[str, ...] = ()

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the name of the class head occurs, in any group."""
        return any("mrcnn_class_logits/" in name for name in names)

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Tensors as `layer/variable`, in the network's layout, biases folded."""
        return network_layout(layer_names(tensors, path), path)

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read widths, depths and counts from the shapes; other values are `Config`'s defaults."""
        shapes = Shapes(source.path, {n: tuple(t.shape) for n, t in tensors.items()})
        body = _body(shapes)
        channels = shapes.of("fpn_p2/kernel", 4)[0]
        spec = ModelSpec(
            dialect=self.name,
            architecture=_architecture(body, shapes),
            body=body,
            classes=_classes(shapes),
            fpn=FpnSpec(channels),
            preprocess=_preprocess(),
            anchors=_anchors(shapes),
            rpn=_rpn(shapes),
            box=_box_head(shapes, channels),
            mask=_mask_head(shapes),
        )
        required = () if spec.anchors.per_cell == len(_RATIOS) else _ANCHORS
        return Reading(spec, unknown_fields(spec, _FIXED), (_DEFAULTS,), required=required)

    def original(self, name: str, spec: ModelSpec) -> str:
        """Map the network's name to `layer/variable`."""
        if spec.box.norm_eps != NORM_EPS:
            raise UsageError(
                f"--norm-eps {spec.box.norm_eps:g}: Matterport's models have Keras' {NORM_EPS:g}, "
                "which the folded class head already contains; omit the option"
            )
        module, _, variable = name.rpartition(".")
        layer = _layer(module)
        if layer.startswith("bn") or "_bn" in layer:
            return f"{layer}/{_NORM_VARIABLES.get(variable, variable)}"
        return f"{layer}/{'kernel' if variable == 'weight' else variable}"


DIALECT = MatterportDialect()


def _layer(module: str) -> str:
    """Keras' layer for the network's `module`."""
    if module in _LAYERS:
        return _LAYERS[module]
    if match := _BLOCK.fullmatch(module):
        stage, block, layer, index, shortcut = match.groups()
        is_norm = layer == "bn" or shortcut == "1"
        branch = "1" if layer is None else f"2{'abc'[int(index) - 1]}"
        letter = chr(ord("a") + int(block))
        return f"{'bn' if is_norm else 'res'}{int(stage) + 1}{letter}_branch{branch}"
    if match := _LATERAL.fullmatch(module):
        level = int(match[2]) + _STAGES[0]
        return f"fpn_c{level}p{level}" if match[1] == "inner" else f"fpn_p{level}"
    if match := _MASK.fullmatch(module):
        return f"mrcnn_mask_{'bn' if match[2] == '1' else 'conv'}{int(match[1]) + 1}"
    return module


def _body(shapes: Shapes) -> ResNetSpec:
    first = [f"res{stage}a_branch2" for stage in _STAGES]
    return ResNetSpec(
        blocks=tuple(max(shapes.count(rf"res{s}([a-z])_branch2a/"), 1) for s in _STAGES),
        block="bottleneck",
        stem_channels=shapes.of("conv1/kernel", 4)[0],
        widths=tuple(shapes.of(f"{name}b/kernel", 4)[0] for name in first),
        channels=tuple(shapes.of(f"{name}c/kernel", 4)[0] for name in first),
        stride_in_1x1=True,
        dilations=(1,) * len(_STAGES),
        norm_eps=NORM_EPS,
        stem_pool="end",
    )


def _architecture(body: ResNetSpec, shapes: Shapes) -> str:
    head = "maskrcnn" if shapes.has("mrcnn_mask") else "fasterrcnn"
    return f"{head}_resnet{body.depth}_fpn"


def _classes(shapes: Shapes) -> ClassSpec:
    count = shapes.of(DIALECT.landmark, 2)[0]
    if count == _COCO_CLASSES:
        return coco.without_gaps(background=True)
    return coco.numbered(count - 1, background=True)


def _preprocess() -> PreprocessSpec:
    return PreprocessSpec(
        short_side=_SHORT_SIDE,
        long_side=_LONG_SIDE,
        resize_rule="matterport",
        interpolation="skimage-bilinear",
        value_range=255.0,
        mean=(123.7, 116.8, 103.9),
        std=(1.0, 1.0, 1.0),
        size_divisor=2 * _STRIDES[-1],
        square=True,
        placement="centred",
        padding="zero-before",
    )


def _anchors(shapes: Shapes) -> AnchorSpec:
    """One size per level; placeholder ratios if there are not three."""
    per_cell = shapes.of("rpn_class_raw/kernel", 4)[0]
    ratios = _RATIOS if per_cell == len(_RATIOS) else (1.0,) * per_cell
    return AnchorSpec(
        sizes=tuple((size,) for size in _SIZES),
        ratios=(ratios,) * len(_SIZES),
        rounded=False,
        stride_rule="nominal",
        end_shift=-1,
    )


def _rpn(shapes: Shapes) -> RpnSpec:
    return RpnSpec(
        conv_widths=(shapes.of("rpn_conv_shared/kernel", 4)[0],),
        pre_nms=6000,
        min_size=0.0,
        box_weights=_BOX_WEIGHTS,
        size_clamp="none",
        top_over="all",
        clip_to="canvas",
    )


def _pooler(output_size: int) -> PoolerSpec:
    """`PyramidROIAlign`: the level is rounded, for sides measured from corner to corner."""
    return PoolerSpec(
        output_size=output_size,
        sampling_ratio=1,
        strides=_STRIDES,
        canonical_size=224.0 * (_LONG_SIDE - 1) / _LONG_SIDE,
        outer_eps=0.5,
        kind="crop_and_resize",
        crop_frame="image",
    )


def _box_head(shapes: Shapes, channels: int) -> BoxHeadSpec:
    names = [f"mrcnn_class_conv{i}/kernel" for i in (1, 2)]
    return BoxHeadSpec(
        pooler=_pooler(shapes.pooled_side(names[0], channels)),
        fc_widths=tuple(shapes.of(name, 2)[0] for name in names),
        norm_eps=NORM_EPS,
        choice="best-class",
        size_clamp="none",
        score_threshold=0.7,
        score_inclusive=True,
        nms_iou=0.3,
        min_size=0.0,
        to_image="round",
        candidates=1000,
    )


def _mask_head(shapes: Shapes) -> MaskHeadSpec | None:
    if not shapes.has("mrcnn_mask"):
        return None
    count = shapes.count(r"mrcnn_mask_conv(\d+)/")
    return MaskHeadSpec(
        pooler=_pooler(14),
        conv_widths=tuple(shapes.of(f"mrcnn_mask_conv{i + 1}/kernel", 4)[0] for i in range(count)),
        deconv_width=shapes.of("mrcnn_mask_deconv/kernel", 4)[1],
        norm="batch_norm" if shapes.has("mrcnn_mask_bn") else "none",
        norm_eps=NORM_EPS,
        paste="resize",
        threshold_inclusive=True,
    )
