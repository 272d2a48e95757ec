"""Photos of the corpus, damaged at random and decoded in children that may die.

`run(first, count)` decodes the mutations with these numbers. What a mutation is depends on its
number alone, so that a long run can be done in pieces and any failure repeated:

    python -m tests.hostile.photo_mutations 1234 1
"""

from __future__ import annotations

import os
import resource
import selectors
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from model.errors import ImageError
from runtime.sources.photos import MAX_PIXELS, decode, decode_at_least
from tests.hostile import image_files as files
from tests.hostile.photo_corpus import cases, saved

FINE = ("pixels", "refused")
MEMORY_BYTES, SECONDS_EACH = 2 << 30, 10.0
_ROOT = Path(__file__).resolve().parents[2]
_PER_CHILD = 500
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
        How many came to pixels, were refused by an `ImageError`, or else: raised something,
        died, hung. `FINE` are the first two; the others carry their number.
    """

    def child(start: int, stop: int) -> Sequence[str]:
        return [
            sys.executable,
            "-m",
            "tests.hostile.photo_mutations",
            "child",
            f"{start}",
            f"{stop}",
        ]

    return watch(child, first, first + count)


def watch(
    child: Callable[[int, int], Sequence[str]],
    first: int,
    end: int,
    fine: Sequence[str] = FINE,
    seconds_each: float = SECONDS_EACH,
) -> Counter[str]:
    """Give the numbers from `first` to `end` to children, and start anew behind one that ends.

    A child prints one line per number, its outcome. What it does not print it died of, and what
    takes longer than `seconds_each` it hung at (its start-up counts with the first). Outcomes
    that are not `fine` are counted with their number before them.
    """
    found: Counter[str] = Counter()
    number = first
    while number < end:
        stop = min(number + _PER_CHILD, end)
        command = child(number, stop)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=_ROOT, env=environment
        ) as process:
            for outcome in _lines(process, stop - number, seconds_each):
                found[outcome if outcome in fine else f"{number}: {outcome}"] += 1
                number += 1
    return found


def _lines(process: subprocess.Popen[bytes], count: int, seconds_each: float) -> Iterator[str]:
    """A child's lines; the last may be its end."""
    assert process.stdout is not None
    unread = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        for _ in range(count):
            while b"\n" not in unread:
                if not selector.select(seconds_each):
                    process.kill()
                    yield f"hung for {seconds_each:g} s"
                    return
                more = os.read(process.stdout.fileno(), 65536)
                if not more:
                    yield f"died with status {process.wait()}"
                    return
                unread += more
            line, _, unread = unread.partition(b"\n")
            yield line.decode()


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
        return "refused" if is_named else f"no name in the message: {error}"
    except BaseException as error:
        return f"raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"answered {pixels.dtype} {pixels.shape}"
    is_sane = 0 < pixels.shape[0] <= height and 0 < pixels.shape[1] <= width
    return "pixels" if is_sane and height * width <= MAX_PIXELS else f"size {pixels.shape}"


def _child(first: int, end: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, end):
            name, data = mutation(number)
            path = Path(folder) / name
            path.write_bytes(data)
            print(outcome(path, number), flush=True)
            path.unlink()


if __name__ == "__main__":
    if sys.argv[1] == "child":
        _child(int(sys.argv[2]), int(sys.argv[3]))
    else:
        for kind, times in run(int(sys.argv[1]), int(sys.argv[2])).most_common():
            print(f"{times:6d}  {kind}")
