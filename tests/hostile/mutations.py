"""Damaged copies of files, read in children that may die.

A copy is drawn at run time, from a base and its number. Where one ends a child, the outcome has the
name and version of the library that read it, and nothing of the copy.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tests.hostile.children import DIED, TIMED_OUT, run_cases, serve

MODULE = "tests.hostile.mutations"
READ, REFUSED, ESCAPED, WRONG = "read", "refused", "escaped", "wrong"
ONNX_BYTES, ONNX_METADATA, PHOTOS, VIDEOS, WEIGHTS = (
    "onnx-bytes", "onnx-metadata", "photos", "videos", "weights"
)  # fmt: skip
LIBRARIES = {
    ONNX_BYTES: "onnxruntime", ONNX_METADATA: "onnxruntime", PHOTOS: "pillow", VIDEOS: "av",
    WEIGHTS: "torch",
}  # fmt: skip
_EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)

Random = np.random.Generator
Change = Callable[[bytearray, Random, int], None]


class Cases(Protocol):
    """The child's side of one kind of file: damage copy `number`, read it, name the outcome."""

    def __call__(self, number: int) -> str: ...


def run(
    kind: str, base: int, numbers: Iterable[int], sound: Path | None = None
) -> Iterator[tuple[int, str]]:
    """Outcomes of the copies with these numbers.

    Args:
        kind: a key of `LIBRARIES`.
        base: the seed that copies are drawn from, together with their numbers.
        numbers: of the copies.
        sound: the exported file that copies of ONNX files are made of.
    """
    library = LIBRARIES[kind]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [kind, str(base), folder, *([] if sound is None else [str(sound)])]
        for number, outcome in run_cases(MODULE, arguments, numbers):
            is_end = outcome.startswith((DIED, TIMED_OUT))
            yield number, f"{library} {version(library)}: {outcome}" if is_end else outcome


def failures(outcomes: Iterable[str]) -> list[str]:
    """The outcomes that our own code may not have."""
    return [o for o in outcomes if any(p.startswith((ESCAPED, WRONG)) for p in o.split(" · "))]


def ends(outcomes: Counter[str]) -> Counter[str]:
    """The outcomes in which a library ended its child, or had to be ended."""
    return Counter({o: n for o, n in outcomes.items() if o.partition(": ")[2].startswith(
        (DIED, TIMED_OUT)
    )})  # fmt: skip


def _bit(body: bytearray, random: Random, at: int) -> None:
    body[at] ^= 1 << int(random.integers(8))


def _byte(body: bytearray, random: Random, at: int) -> None:
    body[at] = random.integers(256)


def _number(body: bytearray, random: Random, at: int) -> None:
    """A length, count or offset becomes a smallest or largest one."""
    width, order = int(random.choice([1, 2, 4])), str(random.choice(["big", "little"]))
    value = int(random.choice(_EXTREMES)) & ((1 << 8 * width) - 1)
    body[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]


def _removed(body: bytearray, random: Random, at: int) -> None:
    del body[at : at + int(random.integers(1, 9))]


def _inserted(body: bytearray, random: Random, at: int) -> None:
    body[at:at] = random.bytes(int(random.integers(1, 9)))


def _copied(body: bytearray, random: Random, at: int) -> None:
    """Another piece of the file: well-formed parts where they do not belong."""
    start, size = int(random.integers(len(body))), int(random.integers(2, 60))
    body[at : at + size] = body[start : start + size]


def _cut(body: bytearray, _: Random, at: int) -> None:
    del body[at:]


CHANGES: tuple[Change, ...] = (*(_bit, _byte, _number) * 3, _removed, _inserted, _copied, _cut)


def mutated(
    sound: bytes, random: Random, offsets: NDArray[np.int64] | None = None, at_offsets: float = 0.85
) -> bytes:
    """A copy that differs, most often at the given offsets."""
    body = bytearray(sound)
    while not body or bytes(body) == sound:
        body = bytearray(sound)
        for _ in range(int(random.choice([1, 1, 2, 4]))):
            is_chosen = offsets is not None and random.random() < at_offsets
            at = int(random.choice(offsets) if is_chosen else random.integers(len(sound)))
            CHANGES[int(random.integers(len(CHANGES)))](body, random, min(at, len(body) - 1))
            if not body:
                break
    return bytes(body)


def _cases(arguments: Sequence[str]) -> Cases:
    from tests.hostile import damaged_files, damaged_onnx

    kind, base, folder, *sound = arguments
    if kind in (ONNX_BYTES, ONNX_METADATA):
        return damaged_onnx.OnnxFiles(kind, int(base), Path(folder), Path(*sound))
    return damaged_files.KINDS[kind](int(base), Path(folder))


if __name__ == "__main__":
    serve(sys.argv[1:], _cases)
