"""Which of several fixed canvases a photo goes to.

The rule: the canvas on which the resize rule leaves the photo largest, in pixels; of equals the
smaller canvas, which is the faster one; then the one that was named first. On an 800x1344 and a
1344x800 canvas a landscape photo thus takes the first and a portrait photo the second, and a
photo as high as wide the first that was named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model.errors import ImageError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.preprocessing.canvas import resized_hw

if TYPE_CHECKING:
    from model.spec import PreprocessSpec

Canvas = tuple[int, int]


def fixed_canvas(artifact: Artifact) -> Canvas | None:
    """Height and width of the canvas that an artifact was exported for; None takes any."""
    manifest = artifact.manifest
    if manifest.height is None or manifest.width is None:
        return None
    return manifest.height, manifest.width


def choose_canvas(
    photo_hw: tuple[int, int], spec: PreprocessSpec, canvases: Sequence[Canvas | None]
) -> int:
    """Index of the canvas for a photo, by the rule above.

    Raises:
        ImageError: the resize rule leaves less than a pixel of the photo on every canvas.
    """
    ranked: list[tuple[int, int, int]] = []
    problem: ImageError | None = None
    for index, canvas in enumerate(canvases):
        try:
            height, width = resized_hw(photo_hw, spec, canvas)
        except ImageError as error:
            problem = problem or error
            continue
        area = 0 if canvas is None else canvas[0] * canvas[1]
        ranked.append((-height * width, area, index))
    if not ranked:
        raise problem or ImageError("no canvas to put a photo on; open at least one artifact")
    return min(ranked)[2]


def require_one_model(artifacts: Sequence[Artifact]) -> None:
    """Several artifacts must be one model on canvases that differ.

    Raises:
        UsageError: other weights, another spec, a canvas twice, or one that takes any size.
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
    canvases = [fixed_canvas(artifact) for artifact in artifacts]
    for artifact, canvas in zip(artifacts, canvases, strict=True):
        if canvas is None:
            raise UsageError(
                f"{artifact.path}: takes photos of any size; open it alone, or export each with "
                "--size"
            )
        if canvases.count(canvas) > 1:
            raise UsageError(
                f"{artifact.path}: a second artifact for {canvas[0]}x{canvas[1]}; leave one out"
            )
