"""What a user should know of a detectron2 configuration that was read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from model.families.detectron2.architecture import depth
from model.families.detectron2.settings import Settings, shown
from model.families.dialect import Source
from model.spec import ModelSpec, ResNetSpec
from model.spec_options import was_said

PIXELS = {"pixel_mean": "MODEL.PIXEL_MEAN", "pixel_std": "MODEL.PIXEL_STD"}
_MOST_NAMES = 20


def notes_of(
    source: Source, settings: Settings, spec: ModelSpec, tensors: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Which file, what in it is not understood, and where the weights say otherwise."""
    notes = [f"configuration: {source.config}"]
    if settings.unknown:
        names = ", ".join(ascii(name[:100])[1:-1] for name in settings.unknown[:_MOST_NAMES])
        more = len(settings.unknown) - _MOST_NAMES
        names += f" and {more} more" if more > 0 else ""
        notes.append(f"keys of it that are not understood: {names}")
    return (*notes, *_other_pixels(source, settings, tensors), *_other_sizes(settings, spec))


def _other_pixels(
    source: Source, settings: Settings, tensors: Mapping[str, Tensor]
) -> Iterator[str]:
    """Old files keep mean and deviation, which detectron2 no longer reads."""
    for name, key in PIXELS.items():
        is_replaced = was_said(f"preprocess.{name.removeprefix('pixel_')}", source.options)
        if name not in tensors or is_replaced:
            continue
        found, said = tensors[name].flatten()[:4].tolist(), settings.numbers(key, 3)
        if len(found) != 3 or not all(map(_is_close, found, said)):
            yield (
                f"{key} is {shown(list(said))}{settings.by_default(key)} in {settings.source}, "
                f"'{name}' of the weights {shown([round(v, 3) for v in found])}; the "
                "configuration is followed"
            )


def _is_close(found: float, said: float) -> bool:
    return math.isclose(found, said, rel_tol=1e-5, abs_tol=1e-5)


def _other_sizes(settings: Settings, spec: ModelSpec) -> Iterator[str]:
    for key, found in _sizes(spec):
        if key in settings.given and settings.given[key] != found:
            yield (
                f"{key} is {shown(settings.given[key])} in {settings.source}, {found} by the "
                "weights, which are followed"
            )


def _sizes(spec: ModelSpec) -> Iterator[tuple[str, int]]:
    """What is read off the weights and stands in a configuration as well."""
    if isinstance(spec.body, ResNetSpec):
        res5 = None if spec.roi_stage is None else spec.roi_stage.blocks
        yield "MODEL.RESNETS.DEPTH", depth(spec.body, res5)
        yield "MODEL.RESNETS.NUM_GROUPS", spec.body.groups
    if spec.roi_stage is None:  # C4 has no such head
        yield "MODEL.ROI_BOX_HEAD.NUM_CONV", len(spec.box.conv_widths)
        yield "MODEL.ROI_BOX_HEAD.NUM_FC", len(spec.box.fc_widths)
        yield from (("MODEL.ROI_BOX_HEAD.FC_DIM", width) for width in spec.box.fc_widths[:1])
    if spec.mask is not None:
        yield "MODEL.ROI_MASK_HEAD.NUM_CONV", len(spec.mask.conv_widths)
    if spec.keypoint is not None:
        yield "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", len(spec.keypoint.names)
