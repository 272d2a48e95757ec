"""Damaged copies of an exported file, each opened twice and run.

First as it is: the checksum must detect the damage. Then with a new checksum, so that the library
and everything behind it get the damaged file. An outcome has both, "refused · another result".
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from export.onnx_file import remove_checksum
from model.errors import MaskportError
from runtime.artifacts.checksum import append_checksum
from runtime.artifacts.metadata import MANIFEST_KEY, SPEC_KEY
from runtime.detections import Detections
from runtime.predictor import Predictor
from tests.hostile.mutations import CHANGES, ESCAPED, ONNX_BYTES, REFUSED, WRONG, Random, mutated

SAME, OTHER = "the same result", "another result"
_CHECKSUM_BYTES = 83
_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 1, 2, 7, 10**9, 1e308, -1e308, 0.5, float("nan"), "", "resize", [], [[]], {},
    [1, 2, 3], {"kind": "resnet"},
)  # fmt: skip


class OnnxFiles:
    """Copies of `sound`, with damage in their bytes or in their metadata."""

    def __init__(self, kind: str, base: int, folder: Path, sound: Path) -> None:
        self._base = base
        self._path = folder / "damaged.onnx"
        self._photo = np.random.default_rng(5).integers(0, 256, (48, 64, 3)).astype(np.uint8)
        self._sound = sound.read_bytes()
        self._damaged = self._damaged_bytes if kind == ONNX_BYTES else self._damaged_metadata
        self._structure = structure_offsets(self._sound)
        self._model = remove_checksum(onnx.load_model_from_string(self._sound))
        self._path.write_bytes(self._sound)
        self._expected = self._predict()

    def __call__(self, number: int) -> str:
        self._path.write_bytes(self._damaged(np.random.default_rng([self._base, number])))
        first = self._outcome()
        if first == OTHER:
            return f"{WRONG}: the damage was not detected"
        append_checksum(self._path)
        return f"{first} · {self._outcome()}"

    def _damaged_bytes(self, random: Random) -> bytes:
        """Most of the damage is in the structure, not in the weights."""
        return mutated(self._sound, random, self._structure)

    def _damaged_metadata(self, random: Random) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        entries = {e.key: e for e in model.metadata_props if e.key in (SPEC_KEY, MANIFEST_KEY)}
        entry = entries[SPEC_KEY if random.random() < 0.7 else MANIFEST_KEY]
        before = entry.value
        while entry.value == before:
            entry.value = _mutated_text(before, random)
        return bytes(model.SerializeToString()) + self._sound[-_CHECKSUM_BYTES:]

    def _outcome(self) -> str:
        try:
            detections = self._predict()
        except MaskportError:
            return REFUSED
        except MemoryError:
            return "out of memory"
        except Exception as error:
            return f"{ESCAPED}: {type(error).__name__}: {error}"
        return compared(detections, self._expected)

    def _predict(self) -> Detections:
        with Predictor.open(self._path, threads=1, on_uncertified="ignore") as predictor:
            detections = predictor.predict(self._photo)
        detections.rle()
        return detections


def structure_offsets(sound: bytes) -> NDArray[np.int64]:
    """Offsets of the bytes that are not the raw data of a tensor."""
    is_structure = np.ones(len(sound), np.bool_)
    for tensor in onnx.load_model_from_string(sound).graph.initializer:
        if len(tensor.raw_data) >= 32:
            at = sound.find(tensor.raw_data)
            is_structure[at : at + len(tensor.raw_data)] = False
    return np.flatnonzero(is_structure)


def compared(detections: Detections, expected: Detections) -> str:
    """Whether a result is finite, and the expected one."""
    for name in ("boxes", "scores", "mask_probs"):
        values = getattr(detections, name)
        if values is not None and not np.isfinite(values).all():
            return f"{WRONG}: {name} that are not finite"
    one, other = asdict(detections), asdict(expected)
    return SAME if all(np.array_equal(one[n], other[n]) for n in one) else OTHER


def _mutated_text(text: str, random: Random) -> str:
    """Change a byte of the text, or an entry of its JSON."""
    if random.random() < 0.25:
        body = bytearray(text.encode())
        change = CHANGES[int(random.integers(len(CHANGES)))]
        change(body, random, int(random.integers(len(body))))
        return bytes(body).decode("utf-8", "replace")
    data = json.loads(text)
    entries = _entries(data)
    owner, key = entries[int(random.integers(len(entries)))]
    choice = random.random()
    if choice < 0.1:
        del owner[key]
    elif choice < 0.2 and isinstance(owner, dict):
        owner[f"{key}x"] = owner.pop(key)
    elif choice < 0.5 and type(owner[key]) in (int, float) and math.isfinite(owner[key]):
        owner[key] = type(owner[key])(owner[key] * random.choice([0.5, 2, -1, 1.01]) + 1)
    else:
        owner[key] = _VALUES[int(random.integers(len(_VALUES)))]
    return json.dumps(data)


def _entries(data: object) -> list[tuple[object, object]]:
    """Every (container, key) of a JSON tree."""
    if isinstance(data, dict):
        keys: list[object] = list(data)
    else:
        keys = list(range(len(data))) if isinstance(data, list) else []
    return [entry for key in keys for entry in ((data, key), *_entries(data[key]))]
