"""Tensor names and shapes as MMDetection's classes give them, and little networks that live."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.lively import picture

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """Sizes of a Mask R-CNN or Faster R-CNN of MMDetection's."""

    blocks: Shape = (3, 4, 6, 3)
    base: int = 64
    groups: int = 1
    width_per_group: int = 64
    fpn: int = 256
    fc: int = 1024
    shared_convs: int = 0
    classes: int = 80
    agnostic: bool = False
    masks: bool = True
    body_norm: str = "bn"
    head_norm: str = ""  # of pyramid, shared convolutions and mask head
    rpn_convs: int = 1


def _normed(shapes: dict[str, Shape], name: str, channels: int) -> None:
    shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)
    if ".bn" in name or "downsample.1" in name:
        shapes[f"{name}.running_mean"] = shapes[f"{name}.running_var"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()


def _biased(shapes: dict[str, Shape], name: str, *weight: int, bias: int | None = None) -> None:
    shapes[f"{name}.weight"] = weight
    shapes[f"{name}.bias"] = (weight[0] if bias is None else bias,)


def _conv_module(shapes: dict[str, Shape], name: str, net: Network, *weight: int) -> None:
    """mmcv's `ConvModule`: no bias if a normalization follows."""
    if not net.head_norm:
        _biased(shapes, f"{name}.conv", *weight)
        return
    shapes[f"{name}.conv.weight"] = weight
    _normed(shapes, f"{name}.{net.head_norm}", weight[0])


def _backbone(net: Network) -> dict[str, Shape]:
    """mmdet `ResNet` and `ResNeXt` of bottlenecks."""
    norm, inputs = net.body_norm, net.base
    shapes: dict[str, Shape] = {"backbone.conv1.weight": (net.base, 3, 7, 7)}
    _normed(shapes, f"backbone.{norm}1", net.base)
    for stage, count in enumerate(net.blocks):
        planes = net.base << stage
        width = planes if net.groups == 1 else planes * net.width_per_group // 64 * net.groups
        for block in range(count):
            at = f"backbone.layer{stage + 1}.{block}"
            shapes[f"{at}.conv1.weight"] = (width, inputs, 1, 1)
            shapes[f"{at}.conv2.weight"] = (width, width // net.groups, 3, 3)
            shapes[f"{at}.conv3.weight"] = (4 * planes, width, 1, 1)
            for i, channels in enumerate((width, width, 4 * planes)):
                _normed(shapes, f"{at}.{norm}{i + 1}", channels)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * planes, inputs, 1, 1)
                _normed(shapes, f"{at}.downsample.1", 4 * planes)
                if norm != "bn":
                    for leaf in ("running_mean", "running_var", "num_batches_tracked"):
                        del shapes[f"{at}.downsample.1.{leaf}"]
            inputs = 4 * planes
    return shapes


def shapes_of(net: Network) -> dict[str, Shape]:
    """Every tensor of its state dict."""
    shapes, c = _backbone(net), net.fpn
    for i in range(4):
        _conv_module(shapes, f"neck.lateral_convs.{i}", net, c, (4 * net.base) << i, 1, 1)
        _conv_module(shapes, f"neck.fpn_convs.{i}", net, c, c, 3, 3)
    for i in range(net.rpn_convs):
        name = "rpn_head.rpn_conv" + (f".{i}.conv" if net.rpn_convs > 1 else "")
        _biased(shapes, name, c, c, 3, 3)
    _biased(shapes, "rpn_head.rpn_cls", 3, c, 1, 1)
    _biased(shapes, "rpn_head.rpn_reg", 12, c, 1, 1)
    box = "roi_head.bbox_head"
    for i in range(net.shared_convs):
        _conv_module(shapes, f"{box}.shared_convs.{i}", net, c, c, 3, 3)
    _biased(shapes, f"{box}.shared_fcs.0", net.fc, c * 49)
    if not net.shared_convs:
        _biased(shapes, f"{box}.shared_fcs.1", net.fc, net.fc)
    _biased(shapes, f"{box}.fc_cls", net.classes + 1, net.fc)
    _biased(shapes, f"{box}.fc_reg", 4 if net.agnostic else 4 * net.classes, net.fc)
    if net.masks:
        for i in range(4):
            _conv_module(shapes, f"roi_head.mask_head.convs.{i}", net, c, c, 3, 3)
        _biased(shapes, "roi_head.mask_head.upsample", c, c, 2, 2)
        outputs = 1 if net.agnostic else net.classes
        _biased(shapes, "roi_head.mask_head.conv_logits", outputs, c, 1, 1)
    return shapes


def state_of(net: Network, device: str = "cpu") -> dict[str, Tensor]:
    """Random tensors; on "meta" only their shapes."""
    torch.manual_seed(0)
    return {name: torch.randn(s, device=device) * 0.1 for name, s in shapes_of(net).items()}


def pictures(count: int, height: int, width: int) -> Tensor:
    """Float32 [count, 3, height, width] in 0..255."""
    images = [torch.tensor(picture(height, width, i)) for i in range(count)]
    return torch.stack(images).permute(0, 3, 1, 2).float()
