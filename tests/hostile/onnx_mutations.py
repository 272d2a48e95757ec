"""Damaged copies of an exported file, by number, and what becomes of each.

Every copy is tried twice: as it is, with the seal that tells the damage, and sealed anew, as a
forger would, so that the library and everything behind it see the damage.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.onnx_file import drop_seal
from model.errors import MaskportError
from runtime.artifacts.checksum import seal
from runtime.artifacts.metadata import MANIFEST_KEY, SPEC_KEY
from runtime.detections import Detections
from runtime.predictor import Predictor
from tests.hostile.children import DIED, TIMED_OUT, run_cases, serve

MODULE = "tests.hostile.onnx_mutations"
REFUSED, SAME, OTHER = "refused", "ran, the same answer", "ran, another answer"
SEAL_REFUSED, SEAL_INTACT = "seal: refused", "seal: the same meaning"
ESCAPED, WRONG = "escaped", "wrong"
BYTES, METADATA = "bytes", "metadata"
_IN_STRUCTURE = 0.85
_PHOTO_HW = (48, 64)


def run(kind: str, sound: Path, cases: range) -> Iterator[tuple[int, str]]:
    """Outcomes of the mutations of one kind, "bytes" or "metadata", in children with limits."""
    with tempfile.TemporaryDirectory() as folder:
        yield from run_cases(MODULE, [kind, str(sound), folder], cases)


def failures(outcomes: Counter[str]) -> list[str]:
    """What may not be among the outcomes."""
    bad = (ESCAPED, WRONG, DIED, TIMED_OUT)
    return [o for o in outcomes if any(part.startswith(bad) for part in o.split(" · "))]


Mutation = Callable[[bytearray, np.random.Generator, int], None]


def _random_byte(body: bytearray, rng: np.random.Generator, at: int) -> None:
    body[at] = rng.integers(256)


def _bit(body: bytearray, rng: np.random.Generator, at: int) -> None:
    body[at] ^= 1 << int(rng.integers(8))


def _extreme(body: bytearray, rng: np.random.Generator, at: int) -> None:
    body[at] = rng.choice([0x00, 0x7F, 0x80, 0xFF])


def _removed(body: bytearray, rng: np.random.Generator, at: int) -> None:
    del body[at : at + int(rng.integers(1, 9))]


def _inserted(body: bytearray, rng: np.random.Generator, at: int) -> None:
    body[at:at] = rng.bytes(int(rng.integers(1, 9)))


def _copied(body: bytearray, rng: np.random.Generator, at: int) -> None:
    """A piece of the file over another place: well-formed parts where they do not belong."""
    start, size = int(rng.integers(len(body))), int(rng.integers(2, 60))
    body[at : at + size] = body[start : start + size]


def _cut(body: bytearray, _: np.random.Generator, at: int) -> None:
    del body[at:]


_BYTE_MUTATIONS: tuple[Mutation, ...] = (
    *(_random_byte, _bit, _extreme) * 3,
    _removed,
    _inserted,
    _copied,
    _cut,
)


class ByteMutations:
    """Mutations of the bytes of a file, most of them where they are structure, not weights."""

    def __init__(self, sound: bytes) -> None:
        self._sound = sound
        self._structure = structure_offsets(sound)

    def mutated(self, case: int) -> bytes:
        """Copy number `case`, which differs from the sound file."""
        rng = np.random.default_rng([1, case])
        body = bytearray(self._sound)
        while bytes(body) == self._sound:
            mutation = _BYTE_MUTATIONS[int(rng.integers(len(_BYTE_MUTATIONS)))]
            for _ in range(int(rng.choice([1, 1, 2, 4]))):
                if rng.random() < _IN_STRUCTURE:
                    at = int(rng.choice(self._structure))
                else:
                    at = int(rng.integers(len(self._sound)))
                mutation(body, rng, min(at, len(body) - 1))
                if mutation is _cut:
                    break
        return bytes(body)


def structure_offsets(sound: bytes) -> NDArray[np.int64]:
    """Where a file's bytes are no tensor's raw data."""
    is_structure = np.ones(len(sound), np.bool_)
    for tensor in onnx.load_model_from_string(sound).graph.initializer:
        if len(tensor.raw_data) >= 32:
            at = sound.find(tensor.raw_data)
            is_structure[at : at + len(tensor.raw_data)] = False
    return np.flatnonzero(is_structure)


class MetadataMutations:
    """Mutations of a file's metadata: JSON values, fields, texts, keys."""

    def __init__(self, sound: bytes) -> None:
        self._sound = drop_seal(onnx.load_model_from_string(sound))
        self._tail = sound[-83:]

    def mutated(self, case: int) -> bytes:
        """Copy number `case`, which ends with the sound file's seal."""
        rng = np.random.default_rng([2, case])
        model = onnx.ModelProto()
        model.CopyFrom(self._sound)
        entries = {e.key: e for e in model.metadata_props if e.key in (SPEC_KEY, MANIFEST_KEY)}
        entry = entries[SPEC_KEY if rng.random() < 0.7 else MANIFEST_KEY]
        while entry.value in {e.value for e in self._sound.metadata_props}:
            entry.value = _mutated_text(entry.value, rng)
        if rng.random() < 0.05:
            model.metadata_props.append(onnx.StringStringEntryProto(key=entry.key, value="{}"))
        if rng.random() < 0.05:
            entry.key = entry.key[:-1]
        return bytes(model.SerializeToString()) + self._tail


_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 1, 2, 7, 10**9, 2**63, -(2**63), 10**400, 1e308, -1e308, 1e-320, 0.5,
    float("nan"), float("inf"), "", "resize", "\x00", "x" * 10_000, [], [[]], {}, [1, 2, 3],
    {"kind": "resnet"},
)  # fmt: skip


def _mutated_text(text: str, rng: np.random.Generator) -> str:
    if rng.random() < 0.25:
        body = bytearray(text.encode())
        _BYTE_MUTATIONS[int(rng.integers(len(_BYTE_MUTATIONS)))](
            body, rng, int(rng.integers(len(body)))
        )
        return bytes(body).decode("utf-8", "replace")
    data = json.loads(text)
    owner, key = _places(data)[int(rng.integers(len(_places(data))))]
    choice = rng.random()
    if choice < 0.1:
        del owner[key]
    elif choice < 0.2 and isinstance(owner, dict):
        owner[f"{key}x"] = owner.pop(key)
    elif choice < 0.5 and type(owner[key]) in (int, float) and math.isfinite(owner[key]):
        owner[key] = type(owner[key])(owner[key] * rng.choice([0.5, 2, -1, 1.01]) + 1)
    else:
        owner[key] = _VALUES[int(rng.integers(len(_VALUES)))]
    return json.dumps(data)


def _places(data: object) -> list[tuple[object, object]]:
    """Every (container, key) of a JSON tree."""
    found: list[tuple[object, object]] = []
    keys = (
        data.keys()
        if isinstance(data, dict)
        else range(len(data))
        if isinstance(data, list)
        else ()
    )
    for key in keys:
        found.append((data, key))
        found.extend(_places(data[key]))
    return found


class _Judge:
    """The child's work: write the copy, open it, run it, look at the answer."""

    def __init__(self, arguments: Sequence[str]) -> None:
        kind, sound, folder = arguments
        content = Path(sound).read_bytes()
        self._mutations = (ByteMutations if kind == BYTES else MetadataMutations)(content)
        self._path = Path(folder) / "mutated.onnx"
        self._photo = np.random.default_rng(5).integers(0, 256, (*_PHOTO_HW, 3)).astype(np.uint8)
        self._path.write_bytes(content)
        self._expected = self._predict()

    def __call__(self, case: int) -> str:
        self._path.write_bytes(self._mutations.mutated(case))
        return f"{self._sealed()} · {self._forged()}"

    def _sealed(self) -> str:
        outcome = self._outcome()
        if outcome == REFUSED:
            return SEAL_REFUSED
        return SEAL_INTACT if outcome == SAME else f"{WRONG}: the damage went through: {outcome}"

    def _forged(self) -> str:
        seal(self._path)
        return self._outcome()

    def _outcome(self) -> str:
        try:
            found = self._predict()
        except MaskportError:
            return REFUSED
        except MemoryError:
            return "out of memory"
        except Exception as error:
            return f"{ESCAPED}: {type(error).__name__}: {error}"
        return verdict(found, self._expected)

    def _predict(self) -> Detections:
        with Predictor.open(self._path, threads=1, on_uncertified="ignore") as predictor:
            found = predictor.predict(self._photo)
        found.rle()
        return found


def verdict(found: Detections, expected: Detections) -> str:
    for name in ("boxes", "scores", "mask_probs"):
        values = getattr(found, name)
        if values is not None and not np.isfinite(values).all():
            return f"{WRONG}: {name} that are not finite"
    one, other = asdict(found), asdict(expected)
    return SAME if all(np.array_equal(one[n], other[n]) for n in one) else OTHER


if __name__ == "__main__":
    serve(sys.argv[1:], _Judge)
