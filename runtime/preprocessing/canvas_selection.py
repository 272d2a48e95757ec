"""The choice among several fixed canvases for a photo.

The rule: the canvas on which the resize rule leaves the photo largest, in pixels; among equals the
smaller canvas, which is faster; then the first given. With an 800x1344 and a 1344x800 canvas, a
landscape photo gets the first, a portrait photo the second, and a square photo the first given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.preprocessing.canvas import resized_hw

if TYPE_CHECKING:
    from model.spec import PreprocessSpec


def choose_canvas(
    photo_hw: tuple[int, int], spec: PreprocessSpec, canvases_hw: Sequence[tuple[int, int] | None]
) -> int:
    """Index of the canvas for a photo, by the rule above; None is a canvas of any size.

    Raises:
        ImageError: the resize rule leaves less than a pixel of the photo on every canvas.
    """
    ranked: list[tuple[int, int, int]] = []
    problem: ImageError | None = None
    for index, canvas_hw in enumerate(canvases_hw):
        try:
            height, width = resized_hw(photo_hw, spec, canvas_hw)
        except ImageError as error:
            problem = problem or error
            continue
        area = 0 if canvas_hw is None else canvas_hw[0] * canvas_hw[1]
        ranked.append((-height * width, area, index))
    if not ranked:
        raise problem or ImageError("no canvas to put a photo on; open at least one artifact")
    return min(ranked)[2]


def require_one_model(artifacts: Sequence[Artifact]) -> None:
    """Require that several artifacts are one model with different fixed canvases.

    Raises:
        UsageError: no artifact, other weights, another spec, two equal canvases, or a file without
            a fixed canvas.
    """
    if not artifacts:
        raise UsageError("expected an artifact to open, got none")
    first = artifacts[0]
    if len(artifacts) == 1:
        return
    for artifact in artifacts:
        if artifact.manifest.weights_sha256 != first.manifest.weights_sha256:
            raise UsageError(
                f"{artifact.path}: made of other weights than {first.path}; several artifacts "
                "must be one model on several canvases"
            )
        if artifact.spec != first.spec:
            raise UsageError(
                f"{artifact.path}: exported with other options than {first.path}; several "
                "artifacts must differ in --size only"
            )
    canvases_hw = [artifact.manifest.canvas_hw for artifact in artifacts]
    for artifact, canvas_hw in zip(artifacts, canvases_hw, strict=True):
        if canvas_hw is None:
            raise UsageError(
                f"{artifact.path}: takes photos of any size; open it alone, or export each with "
                "--size"
            )
        if canvases_hw.count(canvas_hw) > 1:
            raise UsageError(
                f"{artifact.path}: a second artifact for {canvas_hw[0]}x{canvas_hw[1]}; leave one "
                "out"
            )
