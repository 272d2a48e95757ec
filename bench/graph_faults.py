"""Faults that an exporter could make, put into a correct `standard` ONNX file.

Each changes the model in place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

_CLASS_TENSORS = (
    ("box_head.cls_score.weight", 1),
    ("box_head.cls_score.bias", 1),
    ("box_head.bbox_pred.weight", 4),
    ("box_head.bbox_pred.bias", 4),
)
_FIRST_CONVOLUTION = "body.conv1.weight"


def shift_rois(model: onnx.ModelProto, cells: float) -> None:
    """Move the RoIs of every RoIAlign by a fraction of a cell, right and down."""
    for node in [n for n in model.graph.node if n.op_type == "RoiAlign"]:
        sides = {a.name: a.i for a in node.attribute}
        across, down = cells / sides["output_width"], cells / sides["output_height"]
        shift = np.eye(4, dtype=np.float32)
        for corner in (0, 2):
            shift[[0, 2], corner] += (-across, across)
            shift[[1, 3], corner + 1] += (-down, down)
        name = f"{node.name}_shift"
        model.graph.initializer.append(numpy_helper.from_array(shift, name))
        moved = helper.make_node("MatMul", [node.input[1], name], [f"{name}ed"], name)
        node.input[1] = moved.output[0]
        model.graph.node.insert(list(model.graph.node).index(node), moved)


def swap_classes(model: onnx.ModelProto, classes: tuple[int, int]) -> None:
    """Exchange the weights of two classes, 0 is the background, in the box head."""
    for name, rows in _CLASS_TENSORS:
        for tensor in model.graph.initializer:
            if tensor.name == name:
                values = numpy_helper.to_array(tensor).copy()
                a, b = (np.arange(rows * c, rows * (c + 1)) for c in classes)
                values[np.concatenate((a, b))] = values[np.concatenate((b, a))]
                tensor.CopyFrom(numpy_helper.from_array(values, name))


def swap_channels(model: onnx.ModelProto) -> None:
    """BGR in the place of RGB."""
    _change(model, _FIRST_CONVOLUTION, lambda weight: weight[:, ::-1])


def scale_bias(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Multiply the bias of one convolution, with its folded BatchNorm."""
    _change(model, name, lambda bias: bias * np.float32(factor))


def biases(model: onnx.ModelProto) -> list[str]:
    """Names of all biases of convolutions that are not zero, in the order of the graph."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [n for n in model.graph.node if n.op_type.startswith("Conv")]
    names = [n.input[2] for n in convolutions if len(n.input) > 2 and n.input[2] in tensors]
    return [n for n in dict.fromkeys(names) if numpy_helper.to_array(tensors[n]).any()]


def _change(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            values = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
    raise ValueError(f"expected an initializer {name}")
