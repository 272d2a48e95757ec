"""The calibration table: what the observers saw, on disk, so that an interrupted run goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calib.calibration.table_key import TableKey, require_key
from calib.calibration.untrusted_text import read_text
from calib.observers.histogram import Histogram
from calib.observers.methods import METHODS
from calib.observers.observer import Observer
from calib.writers.pairs import LARGEST_RANGE, SMALLEST_RANGE
from model.arrays import Float32
from model.errors import ArtifactError, in_brief
from runtime.files import atomic_path

SCHEMA_VERSION = 1
# A thousand tensors of counts that cannot be packed stay below a third of it.
_MOST_BYTES = 256 << 20
# Up to here whole numbers are exact in float64, and no photos show as many.
_MOST_NUMBERS = 2**53
_DIGEST = re.compile("[0-9a-f]{16}")
_REMEDY = "delete it or name another with --table"


class Table:
    """An observer per tensor, and the photos that they have seen.

    Args:
        key: what it is valid for.
        names: the tensors.
    """

    def __init__(self, key: TableKey, names: Iterable[str]) -> None:
        self.key = key
        self.photos: list[str] = []
        self._observers: dict[str, Observer] = {name: METHODS[key.method]() for name in names}
        self._seen = dict.fromkeys(self._observers, 0)

    @property
    def names(self) -> list[str]:
        """Its tensors."""
        return list(self._observers)

    def observe(self, name: str, values: Float32) -> None:
        """Let a tensor's observer see the numbers of a batch."""
        self._observers[name].observe(values)
        self._seen[name] += values.size

    def require_seen(self) -> None:
        """Stop when a tensor had no row on any photo: its range would be a guess.

        Raises:
            ArtifactError: which tensor.
        """
        unseen = [name for name, count in self._seen.items() if count == 0]
        if unseen:
            raise ArtifactError(
                f"calibration: no photo reached {len(unseen)} of {len(self._seen)} tensors, for "
                f"instance '{unseen[0]}': the heads work on detections, and none was found; give "
                "photos of what the model knows"
            )

    def require_ranges(self, names: Iterable[str]) -> None:
        """Stop where 8 bits would hold nothing of a tensor, or where a step is no number.

        Args:
            names: the tensors whose ranges will be used.

        Raises:
            ArtifactError: one that was zero on every photo, or nearly, or beyond all reason.
        """
        wanted = list(names)
        dead = [name for name in wanted if self._observers[name].maximum < SMALLEST_RANGE]
        if dead:
            raise ArtifactError(
                f"calibration: {len(dead)} of {len(wanted)} tensors were zero on all "
                f"{len(self.photos)} photos, for instance '{dead[0]}': a range would be a guess, "
                "and 8 bits would hold nothing of another photo; give photos of what the model "
                "knows, or leave the layers that read it in floating point (--preset)"
            )
        for name in wanted:
            largest = self._observers[name].maximum
            if largest > LARGEST_RANGE:
                raise ArtifactError(
                    f"calibration: tensor '{name}' reaches {largest:.3g}, expected at most "
                    f"{LARGEST_RANGE:g}; the weights overflow or the table is not of this model"
                )

    def largest(self, name: str, levels: int) -> float:
        """The magnitude that a tensor's last step stands for; see `Observer.largest`."""
        return self._observers[name].largest(levels)

    def histogram(self, name: str) -> Histogram | None:
        """What was counted of a tensor; None where the method keeps no counts."""
        observer = self._observers[name]
        return observer if isinstance(observer, Histogram) else None

    def save(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            ArtifactError: the file cannot be written.
        """
        document = {
            "schema_version": SCHEMA_VERSION,
            "key": asdict(self.key),
            "photos": self.photos,
            "tensors": {
                name: {"seen": self._seen[name], **observer.state()}
                for name, observer in self._observers.items()
            },
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path, key: TableKey, names: Iterable[str]) -> Table:
        """Read a table that fits.

        Raises:
            ArtifactError: unreadable, damaged, or of another model, preprocessing or method.
        """
        document = _read(path)
        require_key(path, document.get("key"), key)
        table = cls(key, names)
        try:
            _require_schema(document["schema_version"])
            table.photos = _photos(document["photos"])
            states: Mapping[str, Any] = document["tensors"]
            for name in table.names:
                seen, observer = _restored(METHODS[key.method], states[name])
                if seen and not table.photos:
                    raise ValueError(f"'{name[:40]}' was seen on no photo")
                table._seen[name], table._observers[name] = seen, observer
        except Exception as error:  # damaged base85, zlib, numbers, fields: each raises its own
            raise ArtifactError(
                f"{path}: a damaged calibration table ({type(error).__name__}: "
                f"{in_brief(error, 100)}); delete it"
            ) from error
        return table


def _require_schema(version: object) -> None:
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise ValueError(f"schema {version!r}")


def _photos(found: object) -> list[str]:
    """Digests as `calib.calibration.photos.digest` makes them, each once."""
    if not isinstance(found, list):
        raise ValueError("photos: expected a list")
    for photo in found:
        if not isinstance(photo, str) or not _DIGEST.fullmatch(photo):
            raise ValueError(f"photos: {photo!r:.40} is no digest")
    if len(set(found)) != len(found):
        raise ValueError("photos: one stands there twice")
    return found


def _restored(kind: type[Observer], state: Mapping[str, Any]) -> tuple[int, Observer]:
    """How many numbers were seen, and an observer that can have seen so many."""
    seen, observer = state["seen"], kind.restore(state)
    if type(seen) is not int or not 0 <= seen <= _MOST_NUMBERS:
        raise ValueError(f"seen {seen!r:.40}")
    if isinstance(observer, Histogram) and observer.total != seen:
        raise ValueError(f"{observer.total} numbers were counted of {seen}")
    if seen == 0 and observer.maximum > 0.0:
        raise ValueError(f"a magnitude of {observer.maximum} where nothing was seen")
    return seen, observer


def _read(path: Path) -> Mapping[str, Any]:
    text = read_text(path, _MOST_BYTES, "calibration table", _REMEDY)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: not a readable calibration table ({in_brief(error, 100)}); {_REMEDY}"
        ) from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path}: not a calibration table; name another with --table")
    return document
