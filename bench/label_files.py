"""Child of `bench/label_readers.py`: writes the label files of masks, from any revision's tree.

python bench/label_files.py FOLDER

FOLDER has `masks/<photo>.npz`; `labels/<photo>.txt`, `labelme/<photo>.json` and, from a tree that
has mask shapes, `labelme_mask/<photo>.json` are written beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from model.arrays import Bool
from runtime.detections import Detections


def to_detections(masks: Bool) -> Detections:
    """Detections with exactly these masks, bool [D, H, W], each with a pixel.

    A square of M x M pixels around a mask is the box, and the pixels are its M x M probabilities,
    so that pasting resizes nothing.
    """
    height, width = masks.shape[1:]
    corners = []
    for mask in masks:
        y, x = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        corners.append((x[0], y[0], x[-1] + 1, y[-1] + 1))
    x0, y0, x1, y1 = np.array(corners).T
    side = int(max((x1 - x0).max(), (y1 - y0).max()))
    probs = np.zeros((len(masks), side, side), np.float32)
    for row, mask in enumerate(masks):
        part = mask[y0[row] : y0[row] + side, x0[row] : x0[row] + side]
        probs[row, : part.shape[0], : part.shape[1]] = part
    detections = Detections(
        boxes=np.stack((x0, y0, x0 + side, y0 + side), axis=1).astype(np.float32),
        scores=np.ones(len(masks), np.float32),
        labels=np.zeros(len(masks), np.int64),
        names=("thing",) * len(masks),
        mask_probs=probs,
        image_hw=(height, width),
        paste="float",
    )
    if not np.array_equal(detections.masks, masks):  # type: ignore[arg-type]
        raise SystemExit("error: pasting changed a mask")
    return detections


def main(folder: Path) -> None:
    """Write the files of all photos."""
    for name in ("labels", "labelme", "labelme_mask"):
        (folder / name).mkdir()
    for path in sorted((folder / "masks").glob("*.npz")):
        with np.load(path) as file:
            detections = to_detections(
                np.unpackbits(file["bits"], count=file["shape"].prod())
                .reshape(file["shape"])
                .astype(np.bool_)
            )
        lines = detections.to_yolo_seg()
        (folder / "labels" / f"{path.stem}.txt").write_text("".join(f"{line}\n" for line in lines))
        photo = f"../images/{path.stem}.png"
        _write(folder / "labelme" / f"{path.stem}.json", detections.to_labelme(photo))
        if "mask_shape" in Detections.to_labelme.__annotations__:
            document = detections.to_labelme(photo, mask_shape="mask")
            _write(folder / "labelme_mask" / f"{path.stem}.json", document)


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
