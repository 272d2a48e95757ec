"""Which parts of a live model become the network's own layers, and which are kept.

A part becomes ours if its class is torchvision's and our layers of the spec equal it in every type
and value. Any other body, head or predictor is kept as the user's module, if it returns what
torchvision's would.

Legend: R boxes, P pooled side.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import SqueezeExcitation

from model.bodies.fpn import FeaturePyramid
from model.bodies.kept import KeptBody
from model.bodies.mobilenet import MobileNetV3Body
from model.bodies.resnet import ResNetBody
from model.errors import MaskportError
from model.families.coco import keypoints as keypoint_names
from model.families.shapes import Shapes
from model.families.torchvision.body import BodyReading, read_body
from model.heads.box import BoxHead
from model.heads.kept import KeptBoxHead, KeptKeypointHead, KeptMaskHead
from model.heads.keypoint import KeypointHead
from model.heads.mask import MaskHead
from model.heads.rpn import RpnHead
from model.live.faces import (
    class_name,
    is_plain,
    require_box_outputs,
    require_maps,
    run_part,
)
from model.live.layers import same_layers, same_sequence, same_weighted_layers
from model.spec import (
    BoxHeadSpec,
    FpnSpec,
    KeypointHeadSpec,
    MaskHeadSpec,
    ModuleBodySpec,
    PoolerSpec,
    ResNetSpec,
    RpnSpec,
)
from model.spec.body import NormKind
from model.spec.tree import BodySpec

_BLOCKS = (BasicBlock, Bottleneck, InvertedResidual, Conv2dNormActivation, SqueezeExcitation)
_CONTAINERS = (nn.Sequential, nn.ModuleDict, nn.ModuleList)


@dataclass(frozen=True, slots=True)
class Backbone:
    """The body and pyramid of the spec, the kept module (None: our layers), and the body's name."""

    body: BodySpec
    fpn: FpnSpec | None
    kept: nn.Module | None
    name: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The kept modules, and their paths in the live model."""

    modules: dict[str, nn.Module] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)


def read_backbone(
    backbone: nn.Module, maps: dict[str, Tensor], strides: tuple[int, ...], channels: int
) -> Backbone:
    """Read the backbone.

    Args:
        backbone: of the live model.
        maps: its output for one canvas.
        strides: of the maps.
        channels: of the photos.
    """
    fpn = _pyramid(backbone)
    if fpn is not None:
        assert isinstance(backbone, BackboneWithFPN)
        body = _own_body(backbone, channels)
        if body is not None:
            return Backbone(body.spec, fpn, None, body.name)
        inputs = tuple(_input_channels(backbone.fpn))
        # The pyramid has one level per output of the body, and the extra one.
        spec = _module_body(backbone.body, inputs, strides[: len(inputs)])
        return Backbone(spec, fpn, KeptBody(backbone.body), _short_name(backbone.body))
    widths = tuple(int(m.shape[1]) for m in maps.values())
    spec = _module_body(backbone, widths, strides)
    return Backbone(spec, None, KeptBody(backbone), _short_name(backbone))


def _module_body(
    module: nn.Module, channels: tuple[int, ...], strides: tuple[int, ...]
) -> ModuleBodySpec:
    return ModuleBodySpec(class_name(module), channels, strides, tuple(range(len(channels))))


def _short_name(module: nn.Module) -> str:
    """A name for the architecture; containers have none of their own."""
    is_container = isinstance(module, _CONTAINERS)
    return "custom" if is_container else type(module).__name__.lower()


def _pyramid(backbone: nn.Module) -> FpnSpec | None:
    """The pyramid of a `BackboneWithFPN`, if our layers equal it."""
    if not (is_plain(backbone, BackboneWithFPN) and is_plain(backbone.fpn, FeaturePyramidNetwork)):
        return None
    fpn = backbone.fpn
    extra = fpn.extra_blocks
    if extra is not None and not is_plain(extra, LastLevelMaxPool):
        return None
    norm, eps = _norm_of(fpn)
    try:
        spec = FpnSpec(_width(fpn), norm, eps, "none" if extra is None else "pool")
        with torch.device("meta"):
            ours = FeaturePyramid(_input_channels(fpn), spec)
    except (MaskportError, AttributeError, IndexError):
        return None
    theirs = nn.ModuleDict({"inner_blocks": fpn.inner_blocks, "layer_blocks": fpn.layer_blocks})
    return spec if _is_ordinary(theirs) and same_layers(theirs, ours) else None


def _width(fpn: nn.Module) -> int:
    return int(fpn.layer_blocks[0][0].out_channels)


def _input_channels(fpn: nn.Module) -> list[int]:
    return [int(block[0].in_channels) for block in fpn.inner_blocks]


def _norm_of(module: nn.Module) -> tuple[NormKind, float]:
    """Kind and epsilon of the first normalization; same_layers compares all of them."""
    for layer in module.modules():
        if isinstance(layer, nn.GroupNorm):
            return "group_norm", layer.eps
        if hasattr(layer, "eps") and hasattr(layer, "running_mean"):
            return "batch_norm", float(layer.eps)
    return "none", 1e-5


def _own_body(backbone: BackboneWithFPN, channels: int) -> BodyReading | None:
    """A ResNet or MobileNet-V3 whose layers equal ours."""
    body = backbone.body
    if not is_plain(body, IntermediateLayerGetter) or not _is_ordinary(body):
        return None
    is_mobilenet = any(isinstance(m, InvertedResidual) for m in body.modules())
    if not is_mobilenet and not hasattr(body, "layer1"):
        return None
    shapes = {f"backbone.{n}": tuple(t.shape) for n, t in backbone.state_dict().items()}
    norm, eps = _norm_of(body)
    try:
        reading = read_body(Shapes(Path("the model"), shapes), eps)
        spec = reading.spec
        if isinstance(spec, ResNetSpec):
            spec = replace(spec, norm=norm, **_dilations(body, len(spec.blocks)))
        with torch.device("meta"):
            ours = _our_body(spec, channels)
    except (MaskportError, AttributeError, IndexError, ValueError, RuntimeError):
        return None
    if list(body.return_layers) != [_layer_name(spec, i) for i in spec.outputs]:
        return None
    return replace(reading, spec=spec) if same_layers(body, ours) else None


def _our_body(spec: BodySpec, channels: int) -> nn.Module:
    if isinstance(spec, ResNetSpec):
        return ResNetBody(spec, channels)
    assert not isinstance(spec, ModuleBodySpec)
    return MobileNetV3Body(spec, channels)


def _layer_name(spec: BodySpec, output: int) -> str:
    return f"layer{output + 1}" if isinstance(spec, ResNetSpec) else str(output)


def _dilations(body: nn.Module, stages: int) -> dict[str, tuple[int, ...]]:
    """Dilations of the first and the last block of each stage."""
    first, others = [], []
    for stage in range(stages):
        blocks = list(body.get_submodule(f"layer{stage + 1}").children())
        first.append(int(blocks[0].conv2.dilation[0]))
        others.append(int(blocks[-1].conv2.dilation[0]))
    if len(body.get_submodule("layer1")) and first != others:
        return {"dilations": tuple(others), "first_dilations": tuple(first)}
    return {"dilations": tuple(others)}


def _is_ordinary(module: nn.Module) -> bool:
    """Whether every container inside runs its children as torchvision's blocks do."""
    for part in module.modules():
        if "forward" in vars(part):
            return False
        if type(part) is IntermediateLayerGetter or not list(part.children()):
            continue
        base = next((b for b in (*_BLOCKS, *_CONTAINERS) if isinstance(part, b)), None)
        if base is None or type(part).forward is not base.forward:
            return False
    return True


def read_rpn_head(
    head: nn.Module, spec: RpnSpec, channels: int, per_cell: int, kept: Kept
) -> RpnSpec:
    """The head's fields of the spec; keeps a head that is not ours."""
    if is_plain(head, RPNHead) and isinstance(head.conv, nn.Sequential):
        widths = (0,) * len(head.conv)
        try:
            with torch.device("meta"):
                ours = RpnHead(channels, widths, per_cell)
        except (ValueError, RuntimeError):
            ours = None
        if ours is not None and widths and _is_ordinary(head.conv) and same_layers(head, ours):
            return replace(spec, conv_widths=widths)
    kept.modules["rpn_head"] = head
    kept.paths.append("rpn.head")
    return replace(spec, module=class_name(head))


def read_box_head(
    heads: RoIHeads, spec: BoxHeadSpec, channels: int, classes: int, kept: Kept
) -> BoxHeadSpec:
    """The head's fields of the spec; keeps head and predictor if one of them is not ours."""
    head, predictor = heads.box_head, heads.box_predictor
    own = _own_box_head(head, spec, channels, classes)
    if own is not None and is_plain(predictor, FastRCNNPredictor):
        with torch.device("meta"):
            ours = BoxHead(channels, spec.pooler.output_size, own, classes - 1, mean=False)
        pairs = [(predictor.cls_score, ours.cls_score), (predictor.bbox_pred, ours.bbox_pred)]
        if all(same_layers(theirs, mine) for theirs, mine in pairs):
            return own
    kept.modules["box_head"] = KeptBoxHead(head, predictor)
    kept.paths.append("roi_heads.box_head, box_predictor")
    names = f"{class_name(head)}, {class_name(predictor)}"
    return replace(spec, conv_widths=(), fc_widths=(), module=names)


def _own_box_head(
    head: nn.Module, spec: BoxHeadSpec, channels: int, classes: int
) -> BoxHeadSpec | None:
    try:
        if is_plain(head, TwoMLPHead):
            own = replace(
                spec, fc_widths=(int(head.fc6.out_features), int(head.fc7.out_features))
            )
        elif is_plain(head, FastRCNNConvFCHead) and _is_ordinary(head):
            norm, eps = _norm_of(head)
            convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
            linear = [m for m in head.children() if isinstance(m, nn.Linear)]
            own = replace(
                spec,
                conv_widths=tuple(int(c.out_channels) for c in convs),
                fc_widths=tuple(int(m.out_features) for m in linear),
                norm=norm,
                norm_eps=eps,
            )
        else:
            return None
        with torch.device("meta"):
            ours = BoxHead(channels, spec.pooler.output_size, own, classes - 1, mean=False)
    except (MaskportError, AttributeError, ValueError, RuntimeError):
        return None
    is_mlp = isinstance(head, TwoMLPHead)  # its ReLUs are no layers
    equal = same_weighted_layers if is_mlp else same_sequence
    return own if equal(head, ours.trunk) else None


def count_classes(heads: RoIHeads, channels: int, pooler: PoolerSpec) -> int:
    """Number of classes with the background, by running the box head on two boxes.

    Raises:
        ModelError: the head fails or returns something else than scores and deltas.
    """
    pooled = torch.zeros(2, channels, pooler.output_size, pooler.output_size)
    features = run_part("roi_heads.box_head", heads.box_head, pooled)
    output = run_part("roi_heads.box_predictor", heads.box_predictor, features)
    return require_box_outputs(output, 2, "roi_heads.box_predictor", heads.box_predictor)


def read_mask_head(
    heads: RoIHeads, pooler: PoolerSpec, channels: int, classes: int, kept: Kept
) -> MaskHeadSpec:
    """The mask head; keeps head and predictor if one of them is not ours.

    Raises:
        ModelError: a part returns something else than square logits of every class.
    """
    head, predictor = heads.mask_head, heads.mask_predictor
    pooled = torch.zeros(2, channels, pooler.output_size, pooler.output_size)
    hidden = run_part("roi_heads.mask_head", head, pooled)
    output = run_part("roi_heads.mask_predictor", predictor, hidden)
    _, side = require_maps(output, 2, classes, "roi_heads.mask_predictor", predictor)
    own = _own_mask_head(head, predictor, pooler, channels, classes)
    if own is not None:
        return own
    kept.modules["mask_head"] = KeptMaskHead(head, predictor)
    kept.paths.append("roi_heads.mask_head, mask_predictor")
    names = f"{class_name(head)}, {class_name(predictor)}"
    return MaskHeadSpec(pooler, (), map_side=side, module=names)


def _own_mask_head(
    head: nn.Module, predictor: nn.Module, pooler: PoolerSpec, channels: int, classes: int
) -> MaskHeadSpec | None:
    is_own = is_plain(head, MaskRCNNHeads) and is_plain(predictor, MaskRCNNPredictor)
    if not is_own or not _is_ordinary(head) or not _is_ordinary_predictor(predictor):
        return None
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    norm, eps = _norm_of(head)
    try:
        spec = MaskHeadSpec(
            pooler=pooler,
            conv_widths=tuple(int(c.out_channels) for c in convs),
            deconv_width=int(predictor.conv5_mask.out_channels),
            norm=norm,
            norm_eps=eps,
            dilation=int(convs[0].dilation[0]) if convs else 1,
        )
        with torch.device("meta"):
            ours = MaskHead(channels, spec, classes)
    except (MaskportError, AttributeError, ValueError, RuntimeError):
        return None
    same = same_layers(head, ours.convs) and same_layers(predictor, ours.predictor)
    return spec if same else None


def _is_ordinary_predictor(predictor: nn.Module) -> bool:
    """Whether the layers are those of torchvision's constructor, in its order."""
    return [n for n, _ in predictor.named_children()] == ["conv5_mask", "relu", "mask_fcn_logits"]


def read_keypoint_head(
    heads: RoIHeads, pooler: PoolerSpec, channels: int, kept: Kept
) -> KeypointHeadSpec:
    """The keypoint head; keeps head and predictor if one of them is not ours.

    Raises:
        ModelError: a part returns something else than square logits.
    """
    head, predictor = heads.keypoint_head, heads.keypoint_predictor
    pooled = torch.zeros(2, channels, pooler.output_size, pooler.output_size)
    hidden = run_part("roi_heads.keypoint_head", head, pooled)
    output = run_part("roi_heads.keypoint_predictor", predictor, hidden)
    count, side = require_maps(output, 2, None, "roi_heads.keypoint_predictor", predictor)
    names = keypoint_names(count)
    if is_plain(head, KeypointRCNNHeads) and is_plain(predictor, KeypointRCNNPredictor):
        convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
        try:
            spec = KeypointHeadSpec(pooler, tuple(int(c.out_channels) for c in convs), names)
            with torch.device("meta"):
                ours = KeypointHead(channels, spec)
        except (MaskportError, ValueError, RuntimeError):
            ours = None
        if (
            ours is not None
            and predictor.up_scale == 2
            and same_layers(head, ours.convs)
            and same_layers(predictor.kps_score_lowres, ours.kps_score_lowres)
        ):
            return spec
    kept.modules["keypoint_head"] = KeptKeypointHead(head, predictor)
    kept.paths.append("roi_heads.keypoint_head, keypoint_predictor")
    module = f"{class_name(head)}, {class_name(predictor)}"
    return KeypointHeadSpec(pooler, names=names, map_side=side, module=module)
