"""Videos damaged as the photos are, read in children: frames, then at most one error, each time.

python -m tests.hostile.video_mutations 0 1000
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from model.errors import ImageError
from runtime.sources.places import open_sources
from tests.hostile.photo_mutations import CHANGES, watch
from tests.runtime.sources import clips

FINE = ("whole", "with an error")
# FFmpeg takes some for its threads; more than photos are given.
_MEMORY_BYTES = 4 << 30


def run(first: int, count: int) -> Counter[str]:
    """As `photo_mutations.run`; `FINE` are videos read to their end, and those with one error."""

    def child(start: int, stop: int) -> Sequence[str]:
        return [
            sys.executable,
            "-m",
            "tests.hostile.video_mutations",
            "child",
            f"{start}",
            f"{stop}",
        ]

    return watch(child, first, first + count, FINE)


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


def _outcome(path: Path) -> str:
    try:
        photos = [item.photo for item in open_sources([str(path)])]
    except BaseException as error:
        return f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    errors = [photo for photo in photos if isinstance(photo, ImageError)]
    if not photos or errors not in ([], photos[-1:]):
        return f"{len(errors)} errors among {len(photos)} items"
    if any(
        isinstance(p, np.ndarray) and (p.dtype != np.uint8 or p.shape[2:] != (3,)) for p in photos
    ):
        return "frames of another kind"
    if errors and not str(errors[0]).startswith(f"{path}: "):
        return f"no name in the message: {errors[0]}"
    return FINE[len(errors)]


def _child(first: int, end: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, end):
            name, data = _mutation(number)
            path = Path(folder) / name
            path.write_bytes(data)
            print(_outcome(path), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "child":
        _child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        for kind, times in run(int(sys.argv[1]), int(sys.argv[2])).most_common():
            print(f"{times:6d}  {kind}")
