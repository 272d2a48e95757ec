"""The `native` lowering: static shapes, standard operators, no plugin.

For TensorRT and TensorRT-RTX; ONNX Runtime runs the very same file, which is how its numbers are
checked. The canvas is fixed, the batch fixed or a range. See docs/tensorrt.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from export.lowering.fixed_point_nms import suppress
from export.lowering.packed_pool import pool_packed
from export.lowering.values import Value, divide_integers
from model.spec import ModelSpec
from model.static_ops import DETECTION_ROUNDS, PROPOSAL_ROUNDS


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """What the lowering may spend.

    Attributes:
        proposal_rounds: NMS iterations per block of proposals.
        detection_rounds: NMS iterations per block of detections.
        nms_block: the most boxes of one block.
        chunk_bytes: the most that one tensor of RoI samples may take.
    """

    proposal_rounds: int = PROPOSAL_ROUNDS
    detection_rounds: int = DETECTION_ROUNDS
    nms_block: int = 512
    chunk_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True)
class RoundsCost:
    """What the rounds of a photo cost: bytes of suppression matrices read, multiply-adds."""

    bytes_read: int
    multiply_adds: int


def rounds_cost(spec: ModelSpec, options: NativeOptions) -> RoundsCost:
    """The price of the NMS rounds for one photo; the matrices hold two bytes an entry."""
    levels = len(spec.anchors.sizes)
    proposals = levels * options.proposal_rounds * _own_entries(spec.rpn.pre_nms, options)
    detections = options.detection_rounds * _own_entries(spec.box.candidates, options)
    return RoundsCost(2 * (proposals + detections), proposals + detections)


def _own_entries(boxes: int, options: NativeOptions) -> int:
    """Entries of all blocks' own matrices."""
    size = -(-boxes // -(-boxes // options.nms_block))
    full, rest = divmod(boxes, size)
    return full * size**2 + rest**2


def translations(
    options: NativeOptions, batch: int
) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table that `torch.onnx.export` takes for this lowering; `batch` is the largest one."""

    def lower_nms_keep(
        boxes: Value, valid: Value, groups: Value, num_groups: int, iou: float, stage: str
    ) -> tuple[Value, Value]:
        rounds = {"proposals": options.proposal_rounds, "detections": options.detection_rounds}
        return suppress(
            boxes, valid, groups, num_groups, iou, rounds=rounds[stage], block=options.nms_block
        )

    def lower_pyramid_pool(
        features: Sequence[Value],
        rois: Value,
        valid: Value,
        strides: Sequence[int],
        output_size: int,
        sampling_ratio: int,
        aligned: bool,
        canonical_size: float,
        canonical_level: int,
        inner_eps: float,
        outer_eps: float,
    ) -> Value:
        return pool_packed(
            features,
            rois,
            valid,
            strides,
            output_size,
            sampling_ratio,
            aligned,
            canonical_size,
            canonical_level,
            inner_eps,
            outer_eps,
            batch=batch,
            chunk_bytes=options.chunk_bytes,
        )

    return {
        torch.ops.maskrcnn.pyramid_pool.default: lower_pyramid_pool,
        torch.ops.maskrcnn.nms_keep.default: lower_nms_keep,
        torch.ops.aten.div.Tensor_mode: divide_integers,
    }
