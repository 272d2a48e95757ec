"""Which normalisation follows detectron2's convolutions: by tensors and by configuration.

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

# LayerNorm has the tensors of GroupNorm, so that only the configuration tells them apart.
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
    """Asks tensors and settings at once."""

    shapes: Shapes
    settings: Settings

    def after(self, conv: str, key: str) -> NormKind:
        """What follows the convolution `conv`, whose part has its norm under `key`.

        1. Running statistics are BatchNorm's alone, and no parameters mean no norm.
        2. Parameters without statistics are GroupNorm's, or those of a BatchNorm that is said:
           old files keep none where the mean is 0 and the variance 1.

        Raises:
            CheckpointError: the configuration says another.
        """
        shown = self._shown(conv)
        said = NORMS[self.settings[key]]
        if shown == "group_norm" and said == "batch_norm" and key in self.settings.said:
            return "batch_norm"
        is_there = f"{conv}.weight" in self.shapes.by_name
        if key in self.settings.given and is_there and said != shown:
            raise CheckpointError(
                f"{self.shapes.path}: {self._what(conv, shown)}, but {key} is "
                f"{self.settings[key]!r} in {self.settings.source}; they are not of one model"
            )
        return shown

    def _shown(self, conv: str) -> NormKind:
        if f"{conv}.norm.running_mean" in self.shapes.by_name:
            return "batch_norm"
        return "group_norm" if f"{conv}.norm.weight" in self.shapes.by_name else "none"

    @staticmethod
    def _what(conv: str, shown: NormKind) -> str:
        if shown == "none":
            return f"no normalisation after '{conv}'"
        if shown == "group_norm":
            return f"'{conv}.norm' is GroupNorm, without running statistics"
        return f"'{conv}.norm' is BatchNorm, with running statistics"


def statistics_left_out(tensors: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Mean 0 and variance 1 of every BatchNorm whose statistics the file does not keep.

    Only where a whole part keeps none: one that is missing among others is damage.
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
    """Beginnings of names with the norm that they share."""
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
