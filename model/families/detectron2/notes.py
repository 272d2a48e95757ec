"""Notes for the user about a detectron2 configuration that was read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from model.families.detectron2.settings import Settings, shown
from model.families.dialect import Source
from model.spec import ModelSpec, ResNetSpec
from model.spec_options import is_set

PIXELS = {"pixel_mean": "MODEL.PIXEL_MEAN", "pixel_std": "MODEL.PIXEL_STD"}
_MOST_NAMES = 20


def notes_of(
    source: Source, settings: Settings, spec: ModelSpec, tensors: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """The file, its unknown keys, and its differences from the weights."""
    notes = [f"configuration: {source.config}"]
    if settings.unknown:
        names = ", ".join(ascii(name[:100])[1:-1] for name in settings.unknown[:_MOST_NAMES])
        more = len(settings.unknown) - _MOST_NAMES
        names += f" and {more} more" if more > 0 else ""
        notes.append(f"unknown keys in it: {names}")
    return (*notes, *_other_pixels(source, settings, tensors), *_other_sizes(settings, spec))


def _other_pixels(
    source: Source, settings: Settings, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Old files contain mean and deviation, which detectron2 no longer reads."""
    for name, key in PIXELS.items():
        is_replaced = is_set(f"preprocess.{name.removeprefix('pixel_')}", source.options)
        if name not in tensors or is_replaced:
            continue
        stored, configured = tensors[name].flatten()[:4].tolist(), settings.numbers(key, 3)
        if len(stored) != 3 or not all(map(_is_close, stored, configured)):
            yield (
                f"{key} is {shown(list(configured))}{settings.by_default(key)} in "
                f"{settings.source}, but '{name}' in the weights is "
                f"{shown([round(v, 3) for v in stored])}; the configuration is used"
            )


def _is_close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5)


def _other_sizes(settings: Settings, spec: ModelSpec) -> Iterator[str]:
    for key, size in _sizes(spec):
        if key in settings.explicit and settings.explicit[key] != size:
            yield (
                f"{key} is {shown(settings.explicit[key])} in {settings.source}, but {size} in "
                "the weights, which are used"
            )


def _sizes(spec: ModelSpec) -> Iterator[tuple[str, int]]:
    """Sizes that are read from the weights but also occur in configurations."""
    if isinstance(spec.body, ResNetSpec):
        # C4 has the last stage in its RoI heads.
        res5_blocks = 0 if spec.roi_stage is None else spec.roi_stage.blocks
        yield "MODEL.RESNETS.DEPTH", spec.body.depth + 3 * res5_blocks
        yield "MODEL.RESNETS.NUM_GROUPS", spec.body.groups
    if spec.roi_stage is None:  # C4 has no such head
        yield "MODEL.ROI_BOX_HEAD.NUM_CONV", len(spec.box.conv_widths)
        yield "MODEL.ROI_BOX_HEAD.NUM_FC", len(spec.box.fc_widths)
        yield from (("MODEL.ROI_BOX_HEAD.FC_DIM", width) for width in spec.box.fc_widths[:1])
    if spec.mask is not None:
        yield "MODEL.ROI_MASK_HEAD.NUM_CONV", len(spec.mask.conv_widths)
    if spec.keypoint is not None:
        yield "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", len(spec.keypoint.names)
