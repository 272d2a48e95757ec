#!/usr/bin/env bash
# pycocotools: mask.area fails on more than 255 masks at once with NumPy 2.
#
# Versions: pycocotools 2.0.11, NumPy 2.4.6. Seen: 2026-12-01.
# Behavior: mask.area of a list of 255 run-length masks returns their areas. With one more mask it
# raises an OverflowError instead. A list of any length is documented, and frPyObjects, decode and
# merge take it. Evaluators that take the areas of all results in one call stop on the 256th.
# Output seen:
#     255 masks: areas 16 to 16
#     256 masks: OverflowError: Python integer 256 out of bounds for uint8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pycocotools==2.0.11 numpy==2.4.6
output=$("$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from pycocotools import mask

square = np.zeros((8, 8), np.uint8, order="F")
square[2:6, 2:6] = 1
one = mask.encode(square)
for count in (255, 256):
    try:
        areas = mask.area([one] * count)
        print(f"{count} masks: areas {areas.min()} to {areas.max()}")
    except Exception as error:
        print(f"{count} masks: {type(error).__name__}: {error}")
PYTHON
)
echo "$output"
expected="255 masks: areas 16 to 16
256 masks: OverflowError: Python integer 256 out of bounds for uint8"
[ "$output" = "$expected" ] || { echo "changed; seen before: $expected" >&2; exit 1; }
