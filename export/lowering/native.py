"""The `native` lowering: static shapes, standard operators, no plugin.

For TensorRT and TensorRT-RTX; checked by running the same file in ONNX Runtime. The canvas is
fixed, the batch fixed or a range. See docs/tensorrt.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from export.lowering.fixed_point_nms import suppress
from export.lowering.packed_pool import pool_packed
from export.lowering.table import operator_table
from export.lowering.values import Value
from model.native.options import NativeOptions
from model.spec import ModelSpec, PoolerSpec


@dataclass(frozen=True, slots=True)
class RoundsCost:
    """The cost of the NMS rounds of a photo: bytes of suppression matrices read, multiply-adds."""

    bytes_read: int
    multiply_adds: int


def rounds_cost(spec: ModelSpec, options: NativeOptions) -> RoundsCost:
    """The cost of the NMS rounds for one photo; matrix entries have two bytes."""
    levels = len(spec.anchors.sizes)
    proposals = levels * options.proposal_rounds * _own_entries(spec.rpn.pre_nms, options)
    detections = options.detection_rounds * _own_entries(spec.box.candidates, options)
    return RoundsCost(2 * (proposals + detections), proposals + detections)


def _own_entries(boxes: int, options: NativeOptions) -> int:
    """Number of entries in the blocks' own matrices."""
    size = options.block_size(boxes)
    full, remainder = divmod(boxes, size)
    return full * size**2 + remainder**2


def translations(
    options: NativeOptions, batch: int
) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translation table for `torch.onnx.export`; `batch` is the largest batch."""

    def pool(
        features: Sequence[Value], rois: Value, valid: Value, spec: PoolerSpec
    ) -> tuple[Value, Value]:
        return pool_packed(features, rois, valid, spec, batch, options)

    def keep(
        boxes: Value, valid: Value, groups: Value, num_groups: int, iou: float, stage: str
    ) -> tuple[Value, Value]:
        rounds, block = options.rounds(stage), options.nms_block
        return suppress(boxes, valid, groups, num_groups, iou, rounds=rounds, block=block)

    return operator_table(pool, keep)
