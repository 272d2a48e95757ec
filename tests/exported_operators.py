"""The network's two opaque operators as small ONNX graphs of a lowering, run by ONNX Runtime."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from model.ops import RoIPooler
from model.spec import PoolerSpec

Table = dict[Callable[..., Any], Callable[..., Any]]


class Pool(nn.Module):
    """`pyramid_pool`; the inputs are named features_0, features_1, …, rois, valid."""

    def __init__(self, spec: PoolerSpec) -> None:
        super().__init__()
        self.pool = RoIPooler(spec)

    def forward(self, features: list[Tensor], rois: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return self.pool(features, rois, valid)


class Nms(nn.Module):
    """`nms_keep`; the inputs are named boxes, valid, groups."""

    def __init__(self, num_groups: int, limit: float, stage: str = "detections") -> None:
        super().__init__()
        self.num_groups, self.limit, self.stage = num_groups, limit, stage

    def forward(self, boxes: Tensor, valid: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ops.maskrcnn.nms_keep(
            boxes, valid, groups, self.num_groups, self.limit, self.stage
        )


def exported(
    module: nn.Module, example: tuple[Any, ...], table: Table, dynamic_shapes: Any = None
) -> onnx.ModelProto:
    """The graph of an operator by a lowering's translation table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=18,
            custom_translation_table=table,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def run(model: onnx.ModelProto, *feeds: Mapping[str, np.ndarray]) -> list[list[np.ndarray]]:
    """The outputs for each feed; entries that are no inputs of the graph are ignored."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return [session.run(None, {name: feed[name] for name in names}) for feed in feeds]


def op_counts(model: onnx.ModelProto) -> Counter[str]:
    """The number of nodes of each operator."""
    return Counter(node.op_type for node in model.graph.node)
