"""Photos of the corpus, damaged at random and decoded in children that may die.

`run(first, count)` decodes the mutations with these numbers. What a mutation is depends on its
number alone, so that a long run can be done in pieces and any failure repeated:

    python -m tests.hostile.photo_mutations 1234 1
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from model.errors import ImageError
from runtime.sources.decoded import MAX_PIXELS
from runtime.sources.photos import decode, decode_at_least
from tests.hostile import image_files as files
from tests.hostile.children import run_cases, serve
from tests.hostile.photo_corpus import cases, saved

MODULE = "tests.hostile.photo_mutations"
FINE = PIXELS, REFUSED = "pixels", "refused"
_EXTREMES = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    2**32 - 1,
)

_Random = np.random.Generator
_Change = Callable[[bytes, _Random], bytes]


def run(first: int, count: int) -> Counter[str]:
    """Decode mutations `first` to `first + count - 1`.

    Returns:
        How many came to pixels and how many were refused by an `ImageError`; and whatever else
        came out, with the number of its mutation behind it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return counted(run_cases(MODULE, [folder], range(first, first + count)))


def counted(found: Iterable[tuple[int, str]], fine: Sequence[str] = FINE) -> Counter[str]:
    """Outcomes by how often they came; those that may not come say at which number they did."""
    named = (o if o in fine else f"{o} (mutation {number})" for number, o in found)
    return Counter(named)


def mutation(number: int) -> tuple[str, bytes]:
    """Name of the sound file, and what became of it."""
    random = np.random.default_rng([20_250_101, number])
    names = list(_sound())
    name = names[number % len(names)]
    sound = data = _sound()[name]
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        data = CHANGES[random.integers(len(CHANGES))](data, random)
    # Mostly with the first bytes of its kind, or most would be refused at first sight.
    if random.random() < 0.9:
        data = sound[:12] + data[12:]
    # Half of the PNGs with checksums that fit, or nothing behind them would ever be looked at.
    if data.startswith(files.SIGNATURE) and random.random() < 0.5:
        data = _with_sums(data)
    return name, data


@cache
def _sound() -> dict[str, bytes]:
    """The corpus' sound files, and noise in the kinds whose pixels are packed."""
    found = {n: data for n, (data, out) in cases().items() if not isinstance(out, str)}
    noise = np.random.default_rng(0).integers(0, 256, (72, 88, 3), np.uint8)
    found["noise.jpg"] = saved(noise, "JPEG")
    found["noise-progressive.jpg"] = saved(noise, "JPEG", progressive=True, restart_marker_rows=1)
    found["noise.png"] = saved(noise, "PNG")
    found["noise.webp"] = saved(noise, "WEBP")
    found["noise.gif"] = saved(noise, "GIF")
    found["noise.tif"] = saved(noise, "TIFF", compression="tiff_lzw")
    found["noise-jpeg.tif"] = saved(noise, "TIFF", compression="jpeg")
    return found


def _flip(data: bytes, random: _Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 9) if data else 0):
        changed[random.integers(len(data))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _overwrite(data: bytes, random: _Random) -> bytes:
    """Random bytes near the start, where the headers are."""
    if not data:
        return data
    at = int(random.integers(min(len(data), 256)))
    return data[:at] + random.bytes(int(random.integers(1, 9))) + data[at + 8 :]


def _cut(data: bytes, random: _Random) -> bytes:
    return data[: int(random.integers(len(data) + 1))]


def _drop(data: bytes, random: _Random) -> bytes:
    start, end = sorted(int(v) for v in random.integers(0, len(data) + 1, 2))
    return data[:start] + data[min(end, start + 64) :]


def _repeat(data: bytes, random: _Random) -> bytes:
    start, end = sorted(int(v) for v in random.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end] * int(random.integers(1, 4)) + data[end:]


def _splice(data: bytes, random: _Random) -> bytes:
    """The beginning of one file and the end of another."""
    others = list(_sound().values())
    other = others[random.integers(len(others))]
    return data[: int(random.integers(len(data) + 1))] + other[int(random.integers(len(other))) :]


def _lie(data: bytes, random: _Random) -> bytes:
    """A length, count, offset or size near the start becomes an extreme one."""
    width, order = int(random.choice([1, 2, 4])), str(random.choice(["big", "little"]))
    at = int(random.integers(min(len(data), 200) + 1))
    value = int(random.choice(_EXTREMES)) & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, order) + data[at + width :]


def _lie_about_a_chunk(data: bytes, random: _Random) -> bytes:
    """The length of a PNG's chunk or of a JPEG's segment, wherever it stands."""
    marks = [data.find(kind) for kind in (b"IHDR", b"IDAT", b"PLTE", b"eXIf", b"acTL", b"fcTL")]
    places = [(mark - 4, 4) for mark in marks if mark >= 4]
    places += [(i + 2, 2) for i in range(min(len(data), 4000)) if data[i] == 0xFF]
    if not places:
        return _lie(data, random)
    at, width = places[random.integers(len(places))]
    value = int(random.choice(_EXTREMES)) & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, "big") + data[at + width :]


CHANGES: tuple[_Change, ...] = (
    _flip, _overwrite, _cut, _drop, _repeat, _splice, _lie, _lie_about_a_chunk
)  # fmt: skip


def _with_sums(data: bytes) -> bytes:
    """A PNG's chunks as far as they can be followed, each with its right checksum."""
    parts, at = [files.SIGNATURE], len(files.SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        parts.append(files.chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts) + data[at:]


class _Judge:
    """The child's side: decodes one mutation after the other."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._folder = Path(*arguments)
        # Odd photos are meant to be, here.
        warnings.simplefilter("ignore")
        _sound()

    def __call__(self, number: int) -> str:
        name, data = mutation(number)
        path = self._folder / name
        path.write_bytes(data)
        return outcome(path, number)


def outcome(path: Path, number: int) -> str:
    """Decode one file, every second at a fraction."""
    try:
        if number % 2:
            decoded = decode_at_least(path, lambda hw: (hw[0] // 3, hw[1] // 3))
            pixels, (height, width) = decoded.pixels, decoded.full_hw
        else:
            pixels = decode(path)
            height, width = pixels.shape[:2]
    except ImageError as error:
        is_named = str(error).startswith(f"{path}: ")
        return REFUSED if is_named else f"wrong: no name in the message: {error}"
    except BaseException as error:
        return f"escaped: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"wrong: {pixels.dtype} {pixels.shape}"
    is_sane = 0 < pixels.shape[0] <= height and 0 < pixels.shape[1] <= width
    return PIXELS if is_sane and height * width <= MAX_PIXELS else f"wrong: size {pixels.shape}"


def _main(argv: Sequence[str]) -> None:
    """A child's arguments are its memory and its folder; a user's are two numbers."""
    if len(argv) == 2 and argv[1].isdecimal():
        for kind, times in run(int(argv[0]), int(argv[1])).most_common():
            print(f"{times:6d}  {kind}")
    else:
        serve(argv, _Judge)


if __name__ == "__main__":
    _main(sys.argv[1:])
