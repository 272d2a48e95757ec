"""Videos damaged as the photos are, read in children: frames, then at most one error, each time.

python -m tests.hostile.video_mutations 0 1000
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from model.errors import ImageError
from runtime.sources.open import open_sources
from tests.hostile.children import run_cases, serve
from tests.hostile.photo_mutations import CHANGES, counted
from tests.runtime.sources import clips

MODULE = "tests.hostile.video_mutations"
FINE = ("whole", "with an error")
# FFmpeg takes some for its threads; more than photos are given.
_MEMORY_BYTES = 4 << 30


def run(first: int, count: int) -> Counter[str]:
    """As `photo_mutations.run`; `FINE` are videos read to their end, and those with one error."""
    with tempfile.TemporaryDirectory() as folder:
        cases = range(first, first + count)
        found = run_cases(MODULE, [folder], cases, memory_bytes=_MEMORY_BYTES)
        return counted(found, FINE)


@cache
def _sound() -> list[tuple[str, bytes]]:
    noise = list(np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            clips.write(Path(folder) / f"clip.{s}", noise) for s in clips.LOSSLESS | clips.LOSSY
        ]
        return [(path.name, path.read_bytes()) for path in paths]


def _mutation(number: int) -> tuple[str, bytes]:
    random = np.random.default_rng([20_250_102, number])
    name, data = _sound()[number % len(_sound())]
    for _ in range(random.integers(1, 3)):
        data = CHANGES[random.integers(len(CHANGES))](data, random)
    return name, data


class _Judge:
    def __init__(self, arguments: Sequence[str]) -> None:
        self._folder = Path(*arguments)
        _sound()

    def __call__(self, number: int) -> str:
        name, data = _mutation(number)
        path = self._folder / name
        path.write_bytes(data)
        return _outcome(path)


def _outcome(path: Path) -> str:
    try:
        photos = [item.photo for item in open_sources([str(path)])]
    except BaseException as error:
        return f"escaped: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    errors = [photo for photo in photos if isinstance(photo, ImageError)]
    if not photos or errors not in ([], photos[-1:]):
        return f"wrong: {len(errors)} errors among {len(photos)} items"
    if any(
        isinstance(p, np.ndarray) and (p.dtype != np.uint8 or p.shape[2:] != (3,)) for p in photos
    ):
        return "wrong: frames of another kind"
    if errors and not str(errors[0]).startswith(f"{path}: "):
        return f"wrong: no name in the message: {errors[0]}"
    return FINE[len(errors)]


def _main(argv: Sequence[str]) -> None:
    if len(argv) == 2 and argv[1].isdecimal():
        for kind, times in run(int(argv[0]), int(argv[1])).most_common():
            print(f"{times:6d}  {kind}")
    else:
        serve(argv, _Judge)


if __name__ == "__main__":
    _main(sys.argv[1:])
