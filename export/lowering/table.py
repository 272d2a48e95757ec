"""The translation table from the opaque operators to a lowering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from export.lowering.values import Value, divide_integers
from model.spec import PoolerSpec
from model.spec_json import pooler_from_json


class Pool(Protocol):
    """Translates `maskrcnn::pyramid_pool`."""

    def __call__(
        self, features: Sequence[Value], rois: Value, valid: Value, spec: PoolerSpec
    ) -> tuple[Value, Value]:
        """See `model.ops.pyramid_pool`."""


class Suppress(Protocol):
    """Translates `maskrcnn::nms_keep`."""

    def __call__(
        self, boxes: Value, valid: Value, groups: Value, num_groups: int, iou: float, stage: str
    ) -> tuple[Value, Value]:
        """See `model.ops.nms_keep`."""


def operator_table(pool: Pool, suppress: Suppress) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The `custom_translation_table` for `torch.onnx.export`."""

    def pyramid_pool(
        features: Sequence[Value], rois: Value, valid: Value, pooler: str
    ) -> tuple[Value, Value]:
        return pool(features, rois, valid, pooler_from_json(pooler))

    return {
        torch.ops.maskrcnn.pyramid_pool.default: pyramid_pool,
        torch.ops.maskrcnn.nms_keep.default: suppress,
        torch.ops.aten.div.Tensor_mode: divide_integers,
    }
