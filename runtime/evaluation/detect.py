"""The detections of an artifact on labeled photos, as COCO rows.

With a folder, each photo's detections are written as soon as they are there, with the hash of its
file, and a later run with the same artifact, annotations and photos continues behind them.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import ArtifactError, UsageError
from model.spec import ModelSpec
from runtime.annotations.labels import Labels
from runtime.cli.console import Bar
from runtime.formats import coco, jsonl, resume
from runtime.formats.coco import CocoRow
from runtime.formats.result_writer import ResultWriter
from runtime.predictor import Predictor
from runtime.sources.items import ItemName

_FORMATS = ("jsonl",)
_ARTIFACT = "artifact"


@dataclass(frozen=True, slots=True)
class Detected:
    """Rows of all photos.

    Attributes:
        rows: in COCO's results format, masks as run lengths.
        resumed: number of photos of an earlier run.
        times: the mean times of the stages; "" if all photos are of an earlier run.
    """

    rows: list[CocoRow]
    resumed: int
    times: str


def detect(predictor: Predictor, labels: Labels, folder: Path | None) -> Detected:
    """Detect on all photos; with a folder, on those that it has no record of.

    Args:
        predictor: of the artifact.
        labels: their photos.
        folder: of the records; created, and locked until the last photo.

    Raises:
        ImageError: a photo that cannot be used: AP over the others would be misleading.
        UsageError: the folder has records of other settings or of a photo that was replaced, or
            another run writes there.
        ArtifactError: the folder cannot be written.
    """
    with ExitStack() as stack:
        writer, rows, done = None, list[CocoRow](), set[int]()
        if folder is not None:
            artifact = {_ARTIFACT: _sha256(predictor.artifact.path)}
            settings = _settings(labels, predictor.spec) | artifact
            settings["value_range"] = predictor.pixel_format.value_range
            writer = ResultWriter(_FORMATS, folder, predictor.spec, True, settings)
            stack.enter_context(writer)
            rows, done = _records(folder, labels)
        remaining = {one: path for one, path in labels.photos.items() if one not in done}
        bar = Bar(len(remaining), "photos")
        results = stack.enter_context(closing(predictor.stream(remaining.values())))
        for (image_id, path), result in zip(remaining.items(), results, strict=True):
            if result.error is not None:
                raise result.error
            assert result.detections is not None
            rows += coco.rows(result.detections, image_id)
            if writer is not None:
                item = ItemName(str(path), path.stem, image_id=image_id, sha256=_sha256(path))
                writer.write_record(item, result.detections)
            bar.advance()
        if writer is not None:
            writer.finish()
        return Detected(rows, len(done), str(predictor.times) if remaining else "")


def detected_before(folder: Path, labels: Labels, spec: ModelSpec) -> list[CocoRow]:
    """The rows of a finished run, of any artifact with the same classes.

    Raises:
        UsageError: no such run, not finished, or of other photos, annotations or classes.
        ArtifactError: its records cannot be read.
    """
    settings = resume.RunSettings(folder, _FORMATS, _settings(labels, spec))
    settings.require_same(except_for=[_ARTIFACT, "value_range"])
    rows, done = _records(folder, labels)
    if done != labels.photos.keys():
        raise UsageError(
            f"{folder}: expected the --run-dir of a finished evaluation, got detections of "
            f"{len(done)} of {len(labels.photos)} photos; finish that run"
        )
    return rows


def _settings(labels: Labels, spec: ModelSpec) -> dict[str, Any]:
    """What two runs have in common whose results can be compared, as JSON data."""
    classes = spec.classes
    return {
        "annotations": _sha256(labels.path),
        "classes": {str(classes.dataset_id(n)): name for n, name in enumerate(classes.names)},
    }


def _records(folder: Path, labels: Labels) -> tuple[list[CocoRow], set[int]]:
    """Rows of an earlier run, and the image ids of its photos; without photos that are gone."""
    path = resume.log_path(folder, _FORMATS)
    rows, done = list[CocoRow](), set[int]()
    for record in jsonl.read(path) if path.exists() else ():
        image_id = record.get("image_id")
        if image_id is None or image_id in done:
            raise ArtifactError(
                f"{path}: {record['image']} has image_id {image_id}, expected one of its own; "
                "name another folder"
            )
        photo = labels.photos.get(image_id)
        if photo is None:
            continue
        if record.get("sha256") != _sha256(photo):
            raise UsageError(
                f"{folder}: {photo} has another content than the photo of its detections; name "
                "another folder"
            )
        done.add(image_id)
        rows += coco.rows_of_record(record, image_id)
    return rows, done


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
