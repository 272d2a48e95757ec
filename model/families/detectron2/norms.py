"""The normalization after detectron2's convolutions, from tensors and configuration.

Source: detectron2 0.6 `layers/batch_norm.py`, `FrozenBatchNorm2d._load_from_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import CheckpointError
from model.families.detectron2.settings import Settings
from model.families.shapes import Shapes
from model.spec import ModelSpec
from model.spec.body import NormKind

# LayerNorm has the same tensors as GroupNorm; only the configuration distinguishes them.
NORMS: Mapping[object, NormKind] = {
    "": "none",
    "BN": "batch_norm",
    "SyncBN": "batch_norm",
    "FrozenBN": "batch_norm",
    "GN": "group_norm",
    "nnSyncBN": "batch_norm",
    "naiveSyncBN": "batch_norm",
    "naiveSyncBN_N": "batch_norm",
}
BODY_KEY = "MODEL.RESNETS.NORM"
KEYS = (BODY_KEY, "MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NORM", "MODEL.ROI_MASK_HEAD.NORM")


@dataclass(frozen=True, slots=True)
class NormReader:
    """Reads the normalization from tensors and settings."""

    shapes: Shapes
    settings: Settings

    def after(self, conv: str, key: str) -> NormKind:
        """The normalization after the convolution `conv`, which is configured under `key`.

        1. Only BatchNorm has running statistics; without parameters there is no norm.
        2. Parameters without statistics are GroupNorm's, or BatchNorm's if that is configured:
           old files omit statistics of mean 0 and variance 1.

        Raises:
            CheckpointError: tensors and configuration disagree.
        """
        actual = self._by_tensors(conv)
        configured = NORMS[self.settings[key]]
        is_configured = key in self.settings.configured
        if actual == "group_norm" and configured == "batch_norm" and is_configured:
            return "batch_norm"
        exists = f"{conv}.weight" in self.shapes.by_name
        if key in self.settings.explicit and exists and configured != actual:
            raise CheckpointError(
                f"{self.shapes.path}: {self._describe(conv, actual)}, but {key} is "
                f"{self.settings[key]!r} in {self.settings.source}; expected files of one model"
            )
        return actual

    def _by_tensors(self, conv: str) -> NormKind:
        if f"{conv}.norm.running_mean" in self.shapes.by_name:
            return "batch_norm"
        return "group_norm" if f"{conv}.norm.weight" in self.shapes.by_name else "none"

    @staticmethod
    def _describe(conv: str, norm: NormKind) -> str:
        if norm == "none":
            return f"no normalization after '{conv}'"
        if norm == "group_norm":
            return f"'{conv}.norm' is GroupNorm, without running statistics"
        return f"'{conv}.norm' is BatchNorm, with running statistics"


def omitted_statistics(tensors: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Mean 0 and variance 1 for every BatchNorm whose statistics the file omits.

    Only if a whole part of the network has none; a single missing one is an error.
    """
    added: dict[str, Tensor] = {}
    for prefixes, norm in _parts(spec):
        names = [n for n in tensors if n.startswith(prefixes)]
        if norm != "batch_norm" or any(n.endswith(".norm.running_mean") for n in names):
            continue
        for name in names:
            if name.endswith(".norm.weight"):
                stem = name.removesuffix("weight")
                added[f"{stem}running_mean"] = torch.zeros(tensors[name].shape)
                added[f"{stem}running_var"] = torch.ones(tensors[name].shape)
    return added


def _parts(spec: ModelSpec) -> list[tuple[tuple[str, ...], NormKind]]:
    """Name prefixes of each part, and its normalization."""
    body = "backbone." if spec.fpn is None else "backbone.bottom_up."
    parts: list[tuple[tuple[str, ...], NormKind]] = [
        ((body, "roi_heads.res5."), spec.body.norm),
        (("roi_heads.box_head.",), spec.box.norm),
    ]
    if spec.fpn is not None:
        parts.append((("backbone.fpn_",), spec.fpn.norm))
    if spec.mask is not None:
        parts.append((("roi_heads.mask_head.",), spec.mask.norm))
    return parts
