"""A random Matterport Mask R-CNN in Keras' layout, and the file that Keras would write of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]
BRANCHES = ("2a", "2b", "2c", "1")
# Layers without weights have groups as well.
_EMPTY = ("input_image", "activation_1", "fpn_p5upsampled", "ROI", "mrcnn_bbox", "mrcnn_detection")


@dataclass(frozen=True)
class Widths:
    """Sizes of the network; the defaults are narrow."""

    blocks: tuple[int, int, int, int] = (1, 1, 2, 1)
    stem: int = 8
    inner: tuple[int, int, int, int] = (4, 8, 8, 8)
    outer: tuple[int, int, int, int] = (12, 16, 16, 16)
    pyramid: int = 8
    rpn: int = 16
    anchors: int = 3
    pool: int = 7
    fc: int = 32
    classes: int = 5
    mask: int = 8


# ResNet-101 for COCO, as published.
FULL = Widths(
    blocks=(3, 4, 23, 3),
    stem=64,
    inner=(64, 128, 256, 512),
    outer=(256, 512, 1024, 2048),
    pyramid=256,
    rpn=512,
    fc=1024,
    classes=81,
    mask=256,
)


def shapes(widths: Widths) -> dict[str, tuple[int, ...]]:
    """Shape of every variable by `layer/variable`, as Keras has it."""
    by_name: dict[str, tuple[int, ...]] = {}

    def conv(name: str, side: int, inputs: int, outputs: int, norm: str | None = None) -> None:
        by_name[f"{name}/kernel"] = (side, side, inputs, outputs)
        by_name[f"{name}/bias"] = (outputs,)
        if norm is not None:
            for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
                by_name[f"{norm}/{variable}"] = (outputs,)

    conv("conv1", 7, 3, widths.stem, "bn_conv1")
    inputs = widths.stem
    for stage, (blocks, inner, outer) in enumerate(
        zip(widths.blocks, widths.inner, widths.outer, strict=True), 2
    ):
        for block in range(blocks):
            name = f"{stage}{chr(97 + block)}_branch"
            sides = {"2a": (1, inputs, inner), "2b": (3, inner, inner), "2c": (1, inner, outer)}
            if block == 0:
                sides["1"] = (1, inputs, outer)
            for branch, size in sides.items():
                conv(f"res{name}{branch}", *size, f"bn{name}{branch}")
            inputs = outer
    for level, outer in enumerate(widths.outer, 2):
        conv(f"fpn_c{level}p{level}", 1, outer, widths.pyramid)
        conv(f"fpn_p{level}", 3, widths.pyramid, widths.pyramid)
    conv("rpn_conv_shared", 3, widths.pyramid, widths.rpn)
    conv("rpn_class_raw", 1, widths.rpn, 2 * widths.anchors)
    conv("rpn_bbox_pred", 1, widths.rpn, 4 * widths.anchors)
    conv("mrcnn_class_conv1", widths.pool, widths.pyramid, widths.fc, "mrcnn_class_bn1")
    conv("mrcnn_class_conv2", 1, widths.fc, widths.fc, "mrcnn_class_bn2")
    by_name["mrcnn_class_logits/kernel"] = (widths.fc, widths.classes)
    by_name["mrcnn_class_logits/bias"] = (widths.classes,)
    by_name["mrcnn_bbox_fc/kernel"] = (widths.fc, 4 * widths.classes)
    by_name["mrcnn_bbox_fc/bias"] = (4 * widths.classes,)
    for index in range(1, 5):
        inputs = widths.pyramid if index == 1 else widths.mask
        conv(f"mrcnn_mask_conv{index}", 3, inputs, widths.mask, f"mrcnn_mask_bn{index}")
    conv("mrcnn_mask_deconv", 2, widths.mask, widths.mask)
    conv("mrcnn_mask", 1, widths.mask, widths.classes)
    return by_name


def random_weights(widths: Widths, seed: int = 0) -> Weights:
    """Weights with which features keep their size and detections are many."""
    rng = np.random.default_rng(seed)
    gains = {"mrcnn_class_logits": 2.0, "rpn_class_raw": 3.0, "mrcnn_mask": 2.0}
    weights: Weights = {}
    for name, shape in shapes(widths).items():
        layer, variable = name.split("/")
        if variable == "kernel":
            scale = gains.get(layer, 1.4) / np.sqrt(np.prod(shape[:-1]))
            value = rng.normal(0, scale, shape)
        elif variable in ("gamma", "moving_variance"):
            value = rng.uniform(0.6, 1.4, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        weights[name] = value.astype(np.float32)
    weights["conv1/kernel"] /= 1500  # pixels reach from 0 to 255
    # Inputs of the last layer are positive: without this a class has all pixels or none.
    weights["mrcnn_mask/kernel"] -= weights["mrcnn_mask/kernel"].mean(axis=2, keepdims=True)
    return weights


def write_h5(path: Path, weights: Mapping[str, Any], *, whole_model: bool = False) -> None:
    """The file of `save_weights`, or of `save` with the weights in a group and an optimizer."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        layers = list(dict.fromkeys(name.split("/")[0] for name in weights))
        root.attrs["layer_names"] = [name.encode() for name in (*_EMPTY, *layers)]
        root.attrs["keras_version"] = b"2.2.4"
        for layer in _EMPTY:
            root.create_group(layer).attrs["weight_names"] = np.zeros(0)
        for name, value in weights.items():
            root.create_dataset(keras_path(name), data=value)
        if whole_model:
            file.create_dataset("optimizer_weights/SGD/iterations:0", data=np.int64(7))


def keras_path(name: str) -> str:
    """Where Keras puts `layer/variable`: the proposal network is a model in the model."""
    layer = name.split("/")[0]
    return f"{'rpn_model' if layer.startswith('rpn_') else layer}/{name}:0"
