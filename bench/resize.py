"""Time to resize one photo: the C kernel against NumPy and torch, one thread, in turn.

Exit status 1 when the C kernel is not twice as fast as NumPy at every size, or differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from bench import results
from runtime.preprocessing.torch_bilinear import IS_COMPILED, resize_c, resize_numpy

PHOTO_HW = (1080, 1920)
SIZES_HW = ((299, 533), (750, 1333), (1080, 1920))
MIN_RATIO = 2.0
RGB, SCALE = (0, 1, 2), 1 / 255


def main() -> int:
    """Measure all sizes; status 1 when the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    if not IS_COMPILED:
        sys.exit("error: the package was built without a C compiler; nothing to compare")
    torch.set_num_threads(1)
    photo = np.random.default_rng(0).integers(0, 256, (*PHOTO_HW, 3), dtype=np.uint8)
    rows = [_row(photo, hw, args.repeats) for hw in SIZES_HW]
    columns = (
        "to",
        "compiled ms",
        "NumPy ms",
        "torch ms",
        "NumPy / compiled",
        "torch / compiled",
        "bit-equal",
    )
    shown = [
        [
            f"{row['to'][0]} x {row['to'][1]}",
            *(f"{row[name]:.1f}" for name in ("compiled", "numpy", "torch")),
            *(f"{row[name] / row['compiled']:.1f}×" for name in ("numpy", "torch")),
            "all" if row["equal"] else "NO",
        ]
        for row in rows
    ]
    note = (
        f"A photo of {PHOTO_HW[0]} x {PHOTO_HW[1]} in bytes to float planes, medians of "
        f"{args.repeats}. torch: `interpolate` of a float image, without its conversion."
    )
    results.write(
        "The resize of a photo",
        f"{note}\n\n{results.table(columns, shown)}",
        {"rows": rows},
        args.json,
        args.markdown,
    )
    is_met = all(r["equal"] and r["numpy"] >= MIN_RATIO * r["compiled"] for r in rows)
    return 0 if is_met else 1


def _row(photo: npt.NDArray[np.uint8], hw: tuple[int, int], repeats: int) -> dict[str, Any]:
    ours, numpys = (np.empty((3, *hw), np.float32) for _ in range(2))
    floats = (torch.from_numpy(photo).permute(2, 0, 1).float() / 255).contiguous()[None]
    resizers: dict[str, Callable[[], object]] = {
        "compiled": lambda: resize_c(ours, photo, RGB, SCALE),
        "numpy": lambda: resize_numpy(numpys, photo, RGB, SCALE),
        "torch": lambda: interpolate(floats, hw, mode="bilinear", align_corners=False),
    }
    spent: dict[str, list[float]] = {name: [] for name in resizers}
    for _ in range(repeats):
        for name, run in resizers.items():
            spent[name].append(_milliseconds(run))
    return {
        "to": hw,
        **{name: round(statistics.median(times), 3) for name, times in spent.items()},
        "equal": bool(np.array_equal(ours, numpys)),
    }


def _milliseconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
