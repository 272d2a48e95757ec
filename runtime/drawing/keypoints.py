"""Keypoints on an image: a dot each and, for COCO's persons, limbs between them."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import ImageDraw

from model.arrays import Float32

# By name, so that models with other keypoints, or another order, get the limbs that they have.
LIMBS = (
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "right_eye"),
    ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
)  # fmt: skip
_FAR_PX = 1e6


def paint_keypoints(
    pen: ImageDraw.ImageDraw,
    points_xy: Float32,
    names: Sequence[str],
    color: tuple[int, int, int],
    line_px: int,
) -> None:
    """Paint one detection's keypoints.

    Args:
        pen: of the image.
        points_xy: float32 [J, 2], original-image pixels; they may lie outside.
        names: of the J keypoints.
        color: RGB, of lines and dots; dots have a white rim.
        line_px: width of a line.
    """
    # Pillow converts to C integers.
    points = points_xy.clip(-_FAR_PX, _FAR_PX).tolist()
    position = dict(zip(names, points, strict=True))
    for start, end in LIMBS:
        if start in position and end in position:
            pen.line((*position[start], *position[end]), fill=color, width=line_px)
    radius = line_px + 1
    for x, y in points:
        dot = (x - radius, y - radius, x + radius, y + radius)
        pen.ellipse(dot, fill=color, outline="white")
