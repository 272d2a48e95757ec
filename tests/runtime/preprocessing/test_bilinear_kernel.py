"""The C kernel of the resize: NumPy's bits, and no access outside its arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from runtime.preprocessing import torch_bilinear
from tests.conftest import ROOT
from tests.runtime.interpreter_lock import is_released_by

if not torch_bilinear.IS_COMPILED:
    pytest.skip("the package was built without a C compiler", allow_module_level=True)

SIDES = ((1, 1), (1, 7), (7, 1), (2, 3), (37, 61), (480, 640), (641, 333))
TARGETS = ((1, 1), (1, 9), (9, 1), (5, 4), (37, 61), (320, 533), (97, 200))


def _photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("channels", "scale"), [((0, 1, 2), 1.0), ((2, 1, 0), 1 / 255)])
def test_every_bit_is_numpys(channels: tuple[int, ...], scale: float) -> None:
    for sides in SIDES:
        for target in TARGETS:
            photo = _photo(*sides)
            ours, numpys = (np.full((3, *target), np.nan, np.float32) for _ in "12")
            torch_bilinear.resize_c(ours, photo, channels, scale)
            torch_bilinear.resize_numpy(numpys, photo, channels, scale)
            np.testing.assert_array_equal(ours, numpys, f"{sides} to {target}")


def test_a_part_of_a_canvas_and_a_photo_with_negative_strides() -> None:
    whole = np.full((3, 50, 70), 7, np.float32)
    photo = _photo(60, 80)[::-1, 5:, ::-1]
    torch_bilinear.resize_into(whole[:, 3:43, 4:64], photo)
    assert (whole[:, :3] == 7).all()
    assert (whole[:, 43:] == 7).all()
    assert (whole[:, :, :4] == 7).all()
    assert (whole[:, :, 64:] == 7).all()
    expected = np.empty((3, 40, 60), np.float32)
    torch_bilinear.resize_numpy(expected, photo, (0, 1, 2), 1.0)
    np.testing.assert_array_equal(whole[:, 3:43, 4:64], expected)


def _arguments() -> list[np.ndarray]:
    """2 x 3 planes of a photo of 4 x 5."""
    i32, f32 = np.int32, np.float32
    return [
        np.zeros((3, 2, 3), f32), np.zeros((4, 15), np.uint8), np.zeros(2, i32), np.zeros(2, i32),
        np.zeros(2, f32), np.zeros((3, 3), i32), np.zeros((3, 3), i32), np.zeros((2, 3), f32),
    ]  # fmt: skip


NAMES = ("planes", "rows", "top", "bottom", "low", "left", "right", "weights")


@pytest.mark.parametrize("which", range(8), ids=NAMES)
def test_other_types_and_shapes_are_refused(which: int) -> None:
    from runtime.preprocessing._bilinear import resize

    resize(*_arguments())
    for change in (
        lambda a: a.astype(np.float64),
        lambda a: a[..., None],
        lambda a: a.astype(">f4"),
    ):
        wrong = _arguments()
        wrong[which] = change(wrong[which])
        with pytest.raises(ValueError, match=f"{NAMES[which]}: expected"):
            resize(*wrong)
    if which != 1:  # a photo of any size is valid
        shorter = _arguments()
        shorter[which] = np.ascontiguousarray(shorter[which][:-1])
        with pytest.raises(ValueError, match="do not fit"):
            resize(*shorter)


@pytest.mark.parametrize(("which", "end"), [(2, 4), (3, 4), (5, 15), (6, 15)])
def test_no_table_reaches_outside_the_photo(which: int, end: int) -> None:
    from runtime.preprocessing._bilinear import resize

    for index in (-1, end, 2**31 - 1, -(2**31)):
        wrong = _arguments()
        wrong[which].flat[-1] = index
        with pytest.raises(IndexError, match=f"{NAMES[which]}: {index} is outside 0 to {end - 1}"):
            resize(*wrong)


def test_planes_with_a_pixel_stride_or_read_only_are_refused() -> None:
    from runtime.preprocessing._bilinear import resize

    apart = _arguments()
    apart[0] = np.zeros((3, 2, 6), np.float32)[:, :, ::2]
    with pytest.raises(ValueError, match="do not fit"):
        resize(*apart)
    locked = _arguments()
    locked[0].flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|writable"):
        resize(*locked)
    with pytest.raises(TypeError):
        resize(*_arguments()[:-1])


def test_other_threads_run_meanwhile() -> None:
    photo, resized = _photo(2000, 3000), np.empty((3, 2000, 3000), np.float32)
    assert is_released_by(lambda: torch_bilinear.resize_into(resized, photo))


def test_the_fallback_without_the_kernel_is_equal() -> None:
    script = (
        "import sys; sys.modules['runtime.preprocessing._bilinear'] = None\n"
        "import numpy as np\n"
        "from runtime.preprocessing import torch_bilinear\n"
        "assert not torch_bilinear.IS_COMPILED\n"
        "pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)\n"
        "resized = np.empty((3, 2, 5), np.float32)\n"
        "torch_bilinear.resize_into(resized, pixels)\n"
        "print(resized.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    resized = np.empty((3, 2, 5), np.float32)
    torch_bilinear.resize_into(resized, np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    assert done.stdout.strip() == str(resized.tolist()), done.stderr
