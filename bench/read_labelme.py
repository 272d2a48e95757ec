"""Child of `bench/label_readers.py`: the masks that labelme reads.

python bench/read_labelme.py FOLDER OUTPUT.npz

FOLDER has `images`, and label files in `labelme` and `labelme_mask`. Runs in an environment with
labelme. The arrays of OUTPUT are named `<folder>/<photo>`: packed bits of [D, H, W].
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from labelme._label_file import read_label_file
from labelme._utils import img_data_to_pil, shapes_to_label


def masks(path: Path) -> Any:
    """The union of the shapes of each group, bool [D, H, W]."""
    annotation = read_label_file(filename=str(path))
    width, height = img_data_to_pil(annotation.image_data).size
    groups: dict[int, list[Any]] = {}
    for shape in annotation.shapes:
        groups.setdefault(shape["group_id"], []).append(shape)
    return np.stack(
        [
            shapes_to_label(
                img_shape=(height, width), shapes=shapes, label_name_to_value={"thing": 1}
            )[0]
            > 0
            for _, shapes in sorted(groups.items())
        ]
    )


def main(folder: Path, output: Path) -> None:
    """Read all photos."""
    arrays = {
        f"{path.parent.name}/{path.stem}": np.packbits(masks(path))
        for path in sorted(folder.glob("labelme*/*.json"))
    }
    np.savez(output, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
