#!/usr/bin/env bash
# ultralytics: labels that its converter makes of mask images are read as other masks.
#
# Versions: ultralytics 8.4.190, opencv-python-headless 5.0.0.93. Seen: 2026-12-01.
# Behavior: `convert_segment_masks_to_yolo_seg` writes the whole pixel coordinates of a contour as
# fractions of the image's size with six decimals. The reader multiplies by the size and truncates,
# so a coordinate that was rounded down comes back one pixel smaller: 301 / 640 is written as
# 0.470312, which times 640 is 300.9997. A rectangle grows, moves or loses a row. The contour of a
# mask that is a pixel high has two points, and no label is written for it.
# Output seen, for a mask image of 640x480 with three rectangles:
#     30x30 at (301, 100): 900 pixels written, 961 read, 900 of them the same; now at (300, 99)
#     60x60 at (5, 200): 3600 pixels written, 3599 read, 3540 of them the same; now at (4, 200)
#     60x1 at (100, 300): 60 pixels written, no label
# PyTorch, which is large, is taken from the environment of $PYTHON if it is there.
set -euo pipefail
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

packages=(ultralytics==8.4.190 opencv-python-headless==5.0.0.93)
needed="import matplotlib, PIL, psutil, requests, torch, torchvision, yaml"
options=()
if "$python" -c "$needed" 2>/dev/null; then options=(--no-deps); fi
"$python" -m pip install --quiet --disable-pip-version-check --target "$work/packages" \
  ${options[@]+"${options[@]}"} "${packages[@]}"

cat >"$work/round_trip.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from ultralytics.data.converter import convert_segment_masks_to_yolo_seg
from ultralytics.data.utils import polygons2masks

folder, (height, width) = Path(sys.argv[1]), (480, 640)
rectangles = {1: (301, 100, 30, 30), 2: (5, 200, 60, 60), 3: (100, 300, 60, 1)}
image = np.zeros((height, width), np.uint8)
for value, (x, y, w, h) in rectangles.items():
    image[y : y + h, x : x + w] = value
(folder / "masks").mkdir()
Image.fromarray(image).save(folder / "masks" / "a.png")
convert_segment_masks_to_yolo_seg(str(folder / "masks"), str(folder / "labels"), classes=3)

read = {}
for line in (folder / "labels" / "a.txt").read_text().splitlines():
    label, *numbers = line.split()
    # As the data set does: float32, times the image's size.
    polygon = np.array(numbers, np.float32).reshape(-1, 2) * np.float32((width, height))
    read[int(label) + 1] = polygons2masks((height, width), [polygon], color=1)[0] > 0
lines = []
for value, (x, y, w, h) in rectangles.items():
    written = image == value
    text = f"{w}x{h} at ({x}, {y}): {written.sum()} pixels written, "
    if value in read:
        ys, xs = np.nonzero(read[value])
        same = (read[value] & written).sum()
        text += f"{len(xs)} read, {same} of them the same; now at ({xs.min()}, {ys.min()})"
    else:
        text += "no label"
    lines.append(text)
print("\n".join(lines))
expected = [
    "30x30 at (301, 100): 900 pixels written, 961 read, 900 of them the same; now at (300, 99)",
    "60x60 at (5, 200): 3600 pixels written, 3599 read, 3540 of them the same; now at (4, 200)",
    "60x1 at (100, 300): 60 pixels written, no label",
]
if lines != expected:
    sys.exit("changed: the output is not the one that was seen")
PYTHON
YOLO_CONFIG_DIR="$work" YOLO_OFFLINE=1 PYTHONPATH="$work/packages" \
  "$python" "$work/round_trip.py" "$work"
