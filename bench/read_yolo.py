"""Child of `bench/label_readers.py`: the masks that Ultralytics and supervision read.

python bench/read_yolo.py FOLDER OUTPUT.npz

FOLDER has `images`, all of one size, and `labels`. Runs in an environment with ultralytics, OpenCV
and supervision. The arrays of OUTPUT are named `<reader>/<photo>`: packed bits of [D, H, W].
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def ultralytics_masks(folder: Path) -> Iterator[tuple[str, Any]]:
    """Of its training data set, at the photos' own size and without augmentation."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.augment import Format
    from ultralytics.data.dataset import YOLODataset

    with Image.open(next((folder / "images").iterdir())) as image:
        side = max(image.size)
    dataset = YOLODataset(
        img_path=str(folder / "images"),
        data={"names": {0: "thing"}, "channels": 3},
        task="segment",
        imgsz=side,
        augment=False,
        hyp=get_cfg(overrides={"mask_ratio": 1, "overlap_mask": False}),
    )
    to_masks = Format(return_mask=True, mask_ratio=1, mask_overlap=False)
    for index, path in enumerate(dataset.im_files):
        yield Path(path).stem, to_masks(dataset.get_image_and_label(index))["masks"].numpy()


def supervision_masks(folder: Path) -> Iterator[tuple[str, Any]]:
    """Of its data set in YOLO's format."""
    from supervision.dataset.formats.yolo import load_yolo_annotations

    names = folder / "data.yaml"
    names.write_text("names: [thing]\n")
    _, paths, annotations = load_yolo_annotations(
        str(folder / "images"), str(folder / "labels"), str(names)
    )
    for path in paths:
        yield Path(path).stem, annotations[path].mask


def main(folder: Path, output: Path) -> None:
    """Read all photos with both."""
    arrays = {}
    for reader, masks in (("ultralytics", ultralytics_masks), ("supervision", supervision_masks)):
        for photo, read in masks(folder):
            arrays[f"{reader}/{photo}"] = np.packbits(read.astype(np.bool_))
    np.savez(output, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
