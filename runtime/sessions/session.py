"""The protocol that every backend implements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

from runtime.artifacts.metadata import Artifact

Inputs = Mapping[str, npt.NDArray[Any]]
Outputs = dict[str, npt.NDArray[Any]]


class Session(Protocol):
    """An opened network. `run` maps the graph's inputs to its outputs by name.

    The inputs are `images` float32 [N, 3, H, W] and `image_hw` float32 [N, 2]; see
    `model.mask_rcnn.Outputs` for the outputs.
    """

    @property
    def artifact(self) -> Artifact:
        """The spec and the manifest of the file."""

    def run(self, inputs: Inputs) -> Outputs:
        """Run once; safe to call from several threads."""

    def close(self) -> None:
        """Free the session's resources."""
