"""The calibration table: observers' states in a JSON file, so that runs can be resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calib.calibration.untrusted_text import read_text
from calib.graph.formats import LARGEST_RANGE, SMALLEST_RANGE
from calib.observers.histogram import Histogram
from calib.observers.methods import METHODS
from calib.observers.observer import Observer
from calib.options import QuantizeOptions
from model.arrays import Float32
from model.errors import ArtifactError, in_brief
from model.spec_json import to_data
from runtime.artifacts.metadata import Artifact
from runtime.files import atomic_path

SCHEMA_VERSION = 1
# Over three times the size of a table of a thousand tensors with incompressible counts.
_MOST_BYTES = 256 << 20
# Integers up to here are exact in float64.
_MOST_VALUES = 2**53
_DIGEST = re.compile("[0-9a-f]{16}")
_REMEDY = "delete it or name another with --table"
_TITLES = {"model_sha256": "model", "preprocess": "preprocessing", "method": "method"}
# Fields of `preprocess` that come from export options.
_EXPORT_TITLES = {"canvas": "canvas (--size)", "batch": "batch (--batch)"}


@dataclass(frozen=True, slots=True)
class TableKey:
    """What a table is valid for; `preprocess` is JSON."""

    model_sha256: str
    preprocess: str
    method: str

    @classmethod
    def of(cls, artifact: Artifact, model_sha256: str, options: QuantizeOptions) -> TableKey:
        """The key for a file and a method."""
        manifest = artifact.manifest
        fields = to_data(artifact.spec.preprocess)
        fields |= {"canvas": [manifest.height, manifest.width], "batch": manifest.batch_bounds[0]}
        if options.value_range is not None:
            fields["value_range"] = list(options.value_range)
        return cls(model_sha256, json.dumps(fields, sort_keys=True), options.method)


def require_key(path: Path, actual: object, expected: TableKey) -> None:
    """Refuse a table that is valid for something else.

    Args:
        path: of the table, for messages.
        actual: its key, as read from the file.
        expected: the key of this run.

    Raises:
        ArtifactError: names the first field that differs.
    """
    fields = actual if isinstance(actual, dict) else {}
    for name, title in _TITLES.items():
        have, want = fields.get(name), getattr(expected, name)
        if have == want:
            continue
        difference = _export_option(have, want) if name == "preprocess" else None
        raise ArtifactError(
            f"{path}: a calibration table of another "
            f"{difference or _excerpt(title, str(have), want)}; {_REMEDY}"
        )


def _export_option(have: object, want: str) -> str | None:
    """The first of canvas and batch that differs; None where other fields differ too."""
    one, other = _parsed(have), _parsed(want)
    names = [name for name in (*_EXPORT_TITLES, *other, *one) if one.get(name) != other.get(name)]
    if not one or not names or any(name not in _EXPORT_TITLES for name in names):
        return None
    name = names[0]
    return f"{_EXPORT_TITLES[name]}: {str(one.get(name))[:40]}, expected {other.get(name)}"


def _parsed(text: object) -> Mapping[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(text) if isinstance(text, str) else None
        return document if isinstance(document, dict) else {}
    return {}


def _excerpt(title: str, have: str, want: str) -> str:
    """Both texts from a little before the first difference."""
    same = next((i for i, (a, b) in enumerate(zip(have, want, strict=False)) if a != b), 0)
    start = max(same - 20, 0)
    return f"{title} (…{have[start:][:40]}, expected …{want[start:][:40]})"


class Table:
    """An observer per tensor, and the digests of the photos that they have observed.

    Args:
        key: what the table is valid for.
        names: of the tensors.
    """

    def __init__(self, key: TableKey, names: Iterable[str]) -> None:
        self.key = key
        self.photos: list[str] = []
        self._observers: dict[str, Observer] = {name: METHODS[key.method]() for name in names}
        self._counts = dict.fromkeys(self._observers, 0)

    @property
    def names(self) -> list[str]:
        """Of the tensors."""
        return list(self._observers)

    def observe(self, name: str, values: Float32) -> None:
        """Pass the values of a batch to a tensor's observer."""
        self._observers[name].observe(values)
        self._counts[name] += values.size

    def require_observed(self) -> None:
        """Refuse tensors that had no row on any photo.

        Raises:
            ArtifactError: names one of them.
        """
        missing = [name for name, count in self._counts.items() if count == 0]
        if missing:
            raise ArtifactError(
                f"calibration: no photo reached {len(missing)} of {len(self._counts)} tensors, for "
                f"instance '{missing[0]}': the heads run on detections, and there were none; use "
                "photos with objects of the model's classes"
            )

    def require_ranges(self, names: Iterable[str]) -> None:
        """Refuse ranges that cannot be written as a scale.

        Args:
            names: of the tensors whose ranges will be used.

        Raises:
            ArtifactError: a tensor was (nearly) zero on every photo, or is too large.
        """
        used = list(names)
        zero = [name for name in used if self._observers[name].maximum < SMALLEST_RANGE]
        if zero:
            raise ArtifactError(
                f"calibration: {len(zero)} of {len(used)} tensors were zero on all "
                f"{len(self.photos)} photos, for instance '{zero[0]}', so their ranges are "
                "unknown; use photos with objects of the model's classes, or leave the layers "
                "that read these tensors in floating point (--preset)"
            )
        for name in used:
            largest = self._observers[name].maximum
            if largest > LARGEST_RANGE:
                raise ArtifactError(
                    f"calibration: tensor '{name}' reaches {largest:.3g}, expected at most "
                    f"{LARGEST_RANGE:g}; the weights overflow or the table is of another model"
                )

    def largest(self, name: str, levels: int) -> float:
        """The magnitude that a tensor's largest code represents; see `Observer.largest`."""
        return self._observers[name].largest(levels)

    def histogram(self, name: str) -> Histogram | None:
        """The counts of a tensor; None for methods without."""
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
                name: {"seen": self._counts[name], **observer.state()}
                for name, observer in self._observers.items()
            },
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path, key: TableKey, names: Iterable[str]) -> Table:
        """Read a table; fields that are not used are ignored.

        Raises:
            ArtifactError: unreadable, damaged, or of another model, preprocessing or method.
        """
        document = _read(path)
        require_key(path, document.get("key"), key)
        table = cls(key, names)
        try:
            version = document["schema_version"]
            if isinstance(version, bool) or version != SCHEMA_VERSION:
                raise ValueError(f"schema {version!r}")
            table.photos = _photos(document["photos"])
            states: Mapping[str, Any] = document["tensors"]
            for name in table.names:
                count, observer = _restored(METHODS[key.method], states[name])
                if count and not table.photos:
                    raise ValueError(f"'{name[:40]}' has values but the table has no photos")
                table._counts[name], table._observers[name] = count, observer
        except Exception as error:  # damaged base85, zlib, numbers, fields: each raises its own
            raise ArtifactError(
                f"{path}: a damaged calibration table ({type(error).__name__}: "
                f"{in_brief(error, 100)}); delete it"
            ) from error
        return table


def _photos(digests: object) -> list[str]:
    """Digests as in `calib.calibration.photos.Photo`, each once."""
    if not isinstance(digests, list):
        raise ValueError("photos: expected a list")
    for digest in digests:
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"photos: {digest!r:.40} is not a digest")
    if len(set(digests)) != len(digests):
        raise ValueError("photos: a digest is repeated")
    return digests


def _restored(method: type[Observer], state: Mapping[str, Any]) -> tuple[int, Observer]:
    """The number of values observed, and an observer consistent with it."""
    count, observer = state["seen"], method.restore(state)
    if type(count) is not int or not 0 <= count <= _MOST_VALUES:
        raise ValueError(f"seen {count!r:.40}")
    if isinstance(observer, Histogram) and observer.total != count:
        raise ValueError(f"the histogram has {observer.total} values, expected {count}")
    if count == 0 and observer.maximum > 0.0:
        raise ValueError(f"a maximum of {observer.maximum} without values")
    return count, observer


def _read(path: Path) -> Mapping[str, Any]:
    text = read_text(path, _MOST_BYTES, "calibration table", _REMEDY)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: not a readable calibration table ({in_brief(error, 100)}); {_REMEDY}"
        ) from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path}: not a calibration table; {_REMEDY}")
    return document
