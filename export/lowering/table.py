"""From the opaque operators to a lowering; the one place that knows their flat arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from export.lowering.values import Value, divide_integers
from model.spec import PoolerSpec


class Pool(Protocol):
    """Writes `maskrcnn::pyramid_pool`."""

    def __call__(
        self, features: Sequence[Value], rois: Value, valid: Value, spec: PoolerSpec
    ) -> Value:
        """See `model.ops.pyramid_pool`; its numbers are the spec's."""


class Suppress(Protocol):
    """Writes `maskrcnn::nms_keep`."""

    def __call__(
        self, boxes: Value, valid: Value, groups: Value, num_groups: int, iou: float, stage: str
    ) -> tuple[Value, Value]:
        """See `model.ops.nms_keep`."""


def operator_table(pool: Pool, suppress: Suppress) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table that `torch.onnx.export` takes."""

    def pyramid_pool(
        features: Sequence[Value],
        rois: Value,
        valid: Value,
        strides: Sequence[int],
        output_size: int,
        sampling_ratio: int,
        aligned: bool,
        *level_rule: float,
    ) -> Value:
        spec = PoolerSpec(output_size, sampling_ratio, aligned, tuple(strides), *level_rule)  # type: ignore[arg-type]
        return pool(features, rois, valid, spec)

    return {
        torch.ops.maskrcnn.pyramid_pool.default: pyramid_pool,
        torch.ops.maskrcnn.nms_keep.default: suppress,
        torch.ops.aten.div.Tensor_mode: divide_integers,
    }
