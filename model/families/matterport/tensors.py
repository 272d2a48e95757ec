"""Convert Matterport's tensors to the network's layout and order.

Keras has kernels as height, width, inputs, outputs (deconvolutions: outputs, inputs), a bias
before every BatchNorm, two logits per anchor, and y before x in boxes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.errors import CheckpointError, first_line

# Keras' default, which Matterport's Config cannot change.
NORM_EPS = 1e-3
# A layer's name; Keras numbers the layers of a nested model that is built again.
_LAYER = re.compile(
    r"(conv1|bn_conv1|(?:res|bn)\d[a-z]_branch(?:1|2[abc])|fpn_c\dp\d|fpn_p\d"
    r"|rpn_conv_shared|rpn_class_raw|rpn_bbox_pred"
    r"|mrcnn_class_(?:conv|bn)\d|mrcnn_class_logits|mrcnn_bbox_fc"
    r"|mrcnn_mask_(?:conv|bn)\d+|mrcnn_mask_deconv|mrcnn_mask)(?:_\d+)?"
)
# Some versions store the anchors as a variable.
_IGNORED = ("anchors/",)
_CLASS_LAYERS = (1, 2)


def layer_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Tensors as `layer/variable`, whatever groups they are in.

    Raises:
        CheckpointError: two tensors with one name.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        *groups, variable = name.removesuffix(":0").split("/")
        layer = next((m[1] for group in groups if (m := _LAYER.fullmatch(group))), None)
        key = name if layer is None else f"{layer}/{variable}"
        if key in renamed:
            raise CheckpointError(
                f"{path}: holds '{key}' twice, in different groups; save the weights again"
            )
        if not key.startswith(_IGNORED):
            renamed[key] = tensor
    return renamed


def network_layout(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of `layer_names` in the network's layout, biases before BatchNorm folded.

    Raises:
        CheckpointError: shapes that no such network has.
    """
    layout = {name: _transposed(name, tensor) for name, tensor in tensors.items()}
    try:
        for index in _CLASS_LAYERS:
            _fold_norm(layout, f"mrcnn_class_conv{index}", f"mrcnn_class_bn{index}")
        for conv in [n.removesuffix("/bias") for n in layout if n.endswith("/bias")]:
            _fold_bias(layout, conv)
        for variable in ("kernel", "bias"):
            _fold_softmax(layout, f"rpn_class_raw/{variable}")
            for layer in ("rpn_bbox_pred", "mrcnn_bbox_fc"):
                _x_first(layout, f"{layer}/{variable}")
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: unexpected shapes ({first_line(error)}); expected those of Matterport's "
            "Mask R-CNN"
        ) from error
    return layout


def norm_of(conv: str) -> str | None:
    """The BatchNorm after a convolution."""
    if conv == "conv1":
        return "bn_conv1"
    if conv.startswith("res"):
        return f"bn{conv.removeprefix('res')}"
    return conv.replace("_conv", "_bn") if conv.startswith("mrcnn_mask_conv") else None


def _transposed(name: str, tensor: Tensor) -> Tensor:
    """Keras' kernels, also those of deconvolutions, with their last two dimensions first."""
    if not name.endswith("/kernel") or tensor.ndim not in (2, 4):
        return tensor
    return tensor.t() if tensor.ndim == 2 else tensor.permute(3, 2, 0, 1)


def _fold_norm(layout: dict[str, Tensor], conv: str, norm: str) -> None:
    """A convolution over the whole RoI and its BatchNorm become one fully connected layer."""
    parts = [layout.pop(f"{norm}/{v}", None) for v in ("gamma", "beta", "moving_mean")]
    variance, kernel = layout.pop(f"{norm}/moving_variance", None), layout.get(f"{conv}/kernel")
    if variance is None or kernel is None or any(part is None for part in parts):
        return  # `load` reports the missing tensors
    gamma, beta, mean = (part.double() for part in parts if part is not None)
    scale = gamma / torch.sqrt(variance.double() + NORM_EPS)
    bias = layout.get(f"{conv}/bias", torch.zeros_like(mean)).double()
    layout[f"{conv}/kernel"] = (kernel.double().flatten(1) * scale[:, None]).float()
    layout[f"{conv}/bias"] = ((bias - mean) * scale + beta).float()


def _fold_bias(layout: dict[str, Tensor], conv: str) -> None:
    """Subtract a convolution's bias from the mean of the BatchNorm after it."""
    mean = f"{norm_of(conv)}/moving_mean"
    if mean in layout:
        bias = layout.pop(f"{conv}/bias")
        layout[mean] = (layout[mean].double() - bias.double()).float()


def _fold_softmax(layout: dict[str, Tensor], name: str) -> None:
    """A softmax over two logits is a sigmoid of their difference, foreground minus background."""
    if name in layout:
        pair = layout[name].double()
        layout[name] = (pair[1::2] - pair[0::2]).float()


def _x_first(layout: dict[str, Tensor], name: str) -> None:
    """Rows dy, dx, dh, dw become dx, dy, dw, dh."""
    if name in layout:
        rows = layout[name]
        grouped = rows.reshape(-1, 4, *rows.shape[1:])
        layout[name] = grouped[:, [1, 0, 3, 2]].flatten(0, 1)
