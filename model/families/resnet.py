"""The stages of a ResNet, read from the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from model.families.shapes import Shapes


class Stages(NamedTuple):
    """The fields of `ResNetSpec` with one entry per stage, and what the stages share."""

    blocks: tuple[int, ...]
    block: Literal["basic", "bottleneck"]
    widths: tuple[int, ...]
    channels: tuple[int, ...]
    groups: int


def read_stages(shapes: Shapes, stages: Sequence[str]) -> Stages:
    """Read the stages with these names, whose tensors are called `{stage}.{block}.conv1.weight`."""
    is_bottleneck = shapes.has(f"{stages[0]}.0.conv3.")
    inner, last = ("conv2", "conv3") if is_bottleneck else ("conv1", "conv2")
    middle = shapes.of(f"{stages[0]}.0.conv2.weight", 4)
    return Stages(
        tuple(block_count(shapes, stage) for stage in stages),
        "bottleneck" if is_bottleneck else "basic",
        tuple(shapes.of(f"{stage}.0.{inner}.weight", 4)[0] for stage in stages),
        tuple(shapes.of(f"{stage}.0.{last}.weight", 4)[0] for stage in stages),
        groups_of(middle) if is_bottleneck else 1,
    )


def block_count(shapes: Shapes, stage: str) -> int:
    """Number of blocks of a stage."""
    return shapes.count(rf"{stage.replace('.', '[.]')}[.](\d+)[.]")


def groups_of(shape: tuple[int, ...]) -> int:
    """Groups of a 3x3 convolution with as many outputs as inputs, by its weight's shape."""
    return max(shape[0] // max(shape[1], 1), 1)
