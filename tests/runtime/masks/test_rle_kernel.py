"""The C kernel of run lengths: no table makes it read or write outside its arrays."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from runtime.masks import rle_from_masks
from runtime.masks.paste import MaskRule
from tests.conftest import ROOT
from tests.runtime.interpreter_lock import is_released_by

if not rle_from_masks.IS_COMPILED:
    pytest.skip("the package was built without a C compiler", allow_module_level=True)

from runtime.masks._rle import encode

NAMES = ("grids", "orders", "first", "count", "cell_x", "weight_x", "cell_y", "weight_y")
SETTINGS = (6, 7, 0.5, False)


def _arguments() -> list[np.ndarray]:
    """Two masks of 2 x 2 cells in an image of 6 x 7: one of 3 x 2 pixels, one of 2 x 3."""
    i32, f32 = np.int32, np.float32
    return [
        np.ones((2, 5, 5), f32),
        np.zeros(2, np.uint8),
        np.array([[1, 2], [4, 3]], i32),
        np.array([[3, 2], [2, 3]], i32),
        np.ones(5, i32),
        np.full((2, 5), 0.5, f32),
        np.ones(5, i32),
        np.full((2, 5), 0.5, f32),
    ]


def test_two_rectangles() -> None:
    from runtime.masks import rle

    expected = np.zeros((2, 6, 7), bool)
    expected[0, 2:4, 1:4] = True
    expected[1, 3:6, 4:6] = True
    texts = encode(*_arguments(), *SETTINGS)
    for text, mask in zip(texts, expected, strict=True):
        np.testing.assert_array_equal(rle.decode({"size": [6, 7], "counts": text}), mask)


@pytest.mark.parametrize("which", range(8), ids=NAMES)
def test_other_types_and_shapes_are_refused(which: int) -> None:
    for change in (
        lambda a: a.astype(np.float64),
        lambda a: a[..., None],
        lambda a: a.astype(a.dtype.newbyteorder(">")) if a.itemsize > 1 else a.astype(">i2"),
    ):
        wrong = _arguments()
        wrong[which] = change(wrong[which])
        with pytest.raises(ValueError, match=f"{NAMES[which]}: expected"):
            encode(*wrong, *SETTINGS)
    shorter = _arguments()
    shorter[which] = np.ascontiguousarray(shorter[which][..., :-1])
    with pytest.raises(ValueError, match="do not fit"):
        encode(*shorter, *SETTINGS)
    apart = _arguments()
    apart[which] = np.repeat(apart[which], 2, axis=-1)[..., ::2]
    with pytest.raises(ValueError, match="contiguous"):
        encode(*apart, *SETTINGS)


@pytest.mark.parametrize(("which", "end"), [(4, 4), (6, 4), (1, 3)])
def test_no_table_reaches_outside_the_grid(which: int, end: int) -> None:
    indices = (255, end) if which == 1 else (-1, end, 2**31 - 1, -(2**31))
    for index in indices:
        wrong = _arguments()
        wrong[which].flat[-1] = index
        with pytest.raises(IndexError, match=f"{NAMES[which]}: {index} is outside 0 to {end - 1}"):
            encode(*wrong, *SETTINGS)


@pytest.mark.parametrize("which", [2, 3])
@pytest.mark.parametrize("value", [-1, 7, 2**31 - 1, -(2**31)])
def test_no_mask_reaches_outside_the_image(which: int, value: int) -> None:
    for at in range(4):
        wrong = _arguments()
        wrong[which].flat[at] = value
        with pytest.raises(IndexError, match=f"mask {at // 2}: .* leave the image"):
            encode(*wrong, *SETTINGS)


def test_counts_that_are_not_those_of_the_tables_are_refused() -> None:
    for at in range(4):
        wrong = _arguments()
        wrong[3].flat[at] -= 1
        with pytest.raises(ValueError, match="do not fit"):
            encode(*wrong, *SETTINGS)
    for height, width in ((-1, 7), (6, -7), (2**31, 7), (6, 2**31)):
        with pytest.raises((ValueError, IndexError), match=r"do not fit|leave the image"):
            encode(*_arguments(), height, width, 0.5, False)
    for missing in range(1, 12):
        with pytest.raises(TypeError):
            encode(*[*_arguments(), *SETTINGS][:missing])


def test_random_tables_give_texts_that_fill_the_image() -> None:
    """Any weights, NaN and infinity among them, and cells in any order, in a child process."""
    script = (
        "import numpy as np\n"
        "from runtime.masks import rle\n"
        "from runtime.masks._rle import encode\n"
        "for seed in range(3000):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    masks, cells = int(rng.integers(1, 4)), int(rng.integers(2, 9))\n"
        "    hw = rng.integers(1, 40, 2)\n"
        "    first = rng.integers(0, hw[::-1] + 1, (masks, 2))\n"
        "    count = rng.integers(0, hw[::-1] - first + 1)\n"
        "    odd = np.array([0, 1, -1, 1e-30, 1e30, np.inf, -np.inf, np.nan, 0.5], np.float32)\n"
        "    def weights(*shape):\n"
        "        some = rng.random(shape, np.float32)\n"
        "        return np.where(rng.random(shape) < 0.3, rng.choice(odd, shape), some)\n"
        "    def sampled(n):\n"
        "        cell = rng.integers(0, cells - 1, n).astype(np.int32)\n"
        "        return np.sort(cell) if seed % 2 else cell\n"
        "    columns, rows = (int(n) for n in count.sum(axis=0))\n"
        "    texts = encode(weights(masks, cells, cells), rng.integers(0, 3, masks, np.uint8),\n"
        "        first.astype(np.int32), count.astype(np.int32), sampled(columns),\n"
        "        weights(2, columns), sampled(rows), weights(2, rows), *hw.tolist(),\n"
        "        float(rng.random()), bool(seed % 3))\n"
        "    for text in texts:\n"
        "        rle.decode({'size': hw.tolist(), 'counts': text})\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "done", done.stderr


def test_other_threads_run_meanwhile() -> None:
    # Noise in one mask of many cells: nearly every pixel turns, so that one call takes a while.
    side = 1500
    masks = np.random.default_rng(0).random((1, side + 3, side + 3), np.float32)
    cell, half = np.arange(side, dtype=np.int32), np.full((2, side), 0.5, np.float32)
    whole = np.array([[0, 0]], np.int32), np.array([[side, side]], np.int32)
    sampled = cell, half, cell, half, side, side
    assert is_released_by(
        lambda: encode(masks, np.zeros(1, np.uint8), *whole, *sampled, 0.5, False)
    )


@pytest.mark.parametrize("paste", ["integer", "float", "resize"])
def test_the_fallback_without_the_kernel_gives_the_same_texts(paste: str) -> None:
    script = (
        "import sys; sys.modules['runtime.masks._rle'] = None\n"
        "import numpy as np\n"
        "from runtime.masks import rle_from_masks\n"
        "from runtime.masks.paste import MaskRule\n"
        "assert not rle_from_masks.IS_COMPILED\n"
        "masks = np.random.default_rng(0).random((3, 7, 7), np.float32)\n"
        "boxes = np.array([[1, 2, 30, 40], [-5, 9, 80, 33], [4, 4, 5, 5]], np.float32)\n"
        f"print(rle_from_masks.encode_pasted(masks, boxes, (50, 60), MaskRule({paste!r})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    masks = np.random.default_rng(0).random((3, 7, 7), np.float32)
    boxes = np.array([[1, 2, 30, 40], [-5, 9, 80, 33], [4, 4, 5, 5]], np.float32)
    expected = rle_from_masks.encode_pasted(masks, boxes, (50, 60), MaskRule(paste))
    assert done.stdout.strip() == str(expected), done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_kernels_compile_as_cpp() -> None:
    code = (
        '#include "runtime/masks/rle_kernel.h"\n'
        '#include "runtime/preprocessing/bilinear_kernel.h"\n'
        "void *kernels[] = {(void *)rle_encode, (void *)bilinear_resize};\n"
    )
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I.", "-xc++", "-"]
    done = subprocess.run(["g++", *flags], cwd=ROOT, input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
