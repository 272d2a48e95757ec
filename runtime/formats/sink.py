"""Result files of a run, one photo after the other, for every kind that a command can save.

Nothing of a photo stays in memory. Each file of a photo appears whole or not at all, and the
photo's record comes last: what has a record is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from model.arrays import UInt8
from model.errors import ArtifactError, UsageError
from model.spec import ModelSpec
from runtime.closing import Closing
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats import coco, crops, jsonl, labelme, layout, resume, rle, yolo
from runtime.formats.lock import FolderLock


@dataclass(frozen=True, slots=True)
class Kind:
    """Something to save: its name on a command line, what it is, whether it needs masks."""

    name: str
    says: str
    needs_masks: bool = False


KINDS = (
    Kind("overlay", "<stem>.png, the photo with the detections drawn on it"),
    Kind("json", "results.json, COCO results"),
    Kind("jsonl", "results.jsonl, a line per photo"),
    Kind("rle", "rle.json, run lengths by photo", needs_masks=True),
    Kind("crops", "crops/<stem>/<row>-<class>.png, each detection cut out"),
    Kind("yolo", "labels/<stem>.txt with classes.txt and data.yaml"),
    Kind("labelme", "labelme/<stem>.json"),
)


class Sink(Protocol):
    """Takes photo after photo."""

    def write(
        self, item_name: str, stem: str, image_id: int, pixels: UInt8, detections: Detections
    ) -> None:
        """Save one photo's results.

        Args:
            item_name: The photo's name in messages and records.
            stem: Of its files, unique within the run; made fit for a file name.
            image_id: Its id in COCO's results.
            pixels: uint8 [H, W, 3] RGB, the photo as detected on.
            detections: What was found.

        Raises:
            ArtifactError: A file cannot be written.
        """

    def close(self) -> list[str]:
        """Write what needs all photos; answers lines that say what is where.

        Raises:
            ArtifactError: A file cannot be written.
        """


@dataclass(frozen=True, slots=True)
class Sinks(Closing):
    """What a run needs to save its kinds.

    Attributes:
        files: The files of each photo, in any order of photos, also several at a time.
        records: One photo after the other, each after its files.
        lock: Of the folder.
    """

    files: tuple[Sink, ...]
    records: Records
    lock: FolderLock

    def finish(self) -> list[str]:
        """Write what needs all photos; answers lines that say what is where.

        Raises:
            ArtifactError: A file cannot be written.
        """
        return [line for sink in (*self.files, self.records) for line in sink.close()]

    def close(self) -> None:
        """Let go of the folder; what was written stays, to be gone on with."""
        with self.lock:
            self.records.log.close()


def make_sinks(
    kinds: Sequence[str],
    folder: Path,
    spec: ModelSpec,
    resume_run: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Sinks:
    """Open what a run needs to save `kinds`.

    Args:
        kinds: Names out of `KINDS`.
        folder: Of the results; it is made.
        spec: Of the model.
        resume_run: Go on behind an earlier run (`runtime.formats.resume.done_ids` are its photos,
            not to be given again); otherwise its records are replaced when the first is written.
        settings: What else decides the results, as JSON has it: a run cannot go on after one that
            was made otherwise.

    Raises:
        UsageError: An unknown kind, one that needs masks of a model without, a run that cannot be
            resumed, or another one that is writing into the folder.
        ArtifactError: The folder or a file cannot be made.
    """
    require_kinds(kinds, spec)
    _make_folder(folder)
    by_kind: dict[str, Sink] = {
        "overlay": _Overlays(folder),
        "crops": _Crops(folder),
        "yolo": _Yolo(folder, spec),
        "labelme": _Labelme(folder),
    }
    files = tuple(sink for kind, sink in by_kind.items() if kind in kinds)
    lock = FolderLock(folder)
    try:
        note = resume.Note(folder, kinds, settings or {})
        if resume_run:
            note.require_same()
        log = jsonl.Writer(resume.log_path(folder, kinds), resume=resume_run)
        return Sinks(files, Records(folder, frozenset(kinds), log, note), lock)
    except BaseException:
        lock.close()
        raise


def require_kinds(kinds: Sequence[str], spec: ModelSpec) -> None:
    """Require that all kinds are known and possible.

    Raises:
        UsageError: They are not.
    """
    known = {kind.name: kind for kind in KINDS}
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        got = f"'{unknown[0]}'" if unknown else "nothing"
        raise UsageError(f"save: expected some of {', '.join(known)}, got {got}")
    for name in kinds:
        if known[name].needs_masks and spec.mask is None:
            raise UsageError(f"save: {name} needs masks, and this model has none; take json")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot make the folder ({error.strerror}); name another with -o"
        ) from error


@dataclass(slots=True)
class _Overlays:
    folder: Path
    count: int = 0

    def write(
        self, item_name: str, stem: str, image_id: int, pixels: UInt8, detections: Detections
    ) -> None:
        picture = detections.draw(pixels)
        with atomic_path(layout.overlay(self.folder, stem)) as temporary:
            picture.save(temporary)
        self.count += 1

    def close(self) -> list[str]:
        return [f"overlays: {self.folder}"] if self.count else []


@dataclass(slots=True)
class _Crops:
    folder: Path

    def write(
        self, item_name: str, stem: str, image_id: int, pixels: UInt8, detections: Detections
    ) -> None:
        place = layout.crops(self.folder, stem)
        crops.write(place.parent, place.name, pixels, detections)

    def close(self) -> list[str]:
        parent = layout.crops(self.folder, "any").parent
        return [f"cutouts: {parent}"] if parent.is_dir() else []


@dataclass(slots=True)
class _Yolo:
    folder: Path
    spec: ModelSpec

    def write(
        self, item_name: str, stem: str, image_id: int, pixels: UInt8, detections: Detections
    ) -> None:
        path = layout.labels(self.folder, stem)
        _make_folder(path.parent)
        yolo.write(path, detections)

    def close(self) -> list[str]:
        yolo.write_names(self.folder, self.spec)
        parent = layout.labels(self.folder, "any").parent
        return [f"YOLO labels: {parent} (classes: {self.folder / layout.CLASSES})"]


@dataclass(slots=True)
class _Labelme:
    folder: Path

    def write(
        self, item_name: str, stem: str, image_id: int, pixels: UInt8, detections: Detections
    ) -> None:
        path = layout.labelme(self.folder, stem)
        _make_folder(path.parent)
        labelme.write(path, detections, _photo_beside(item_name, path, pixels))

    def close(self) -> list[str]:
        parent = layout.labelme(self.folder, "any").parent
        return [f"labelme files: {parent}"] if parent.is_dir() else []


def _photo_beside(item_name: str, path: Path, pixels: UInt8) -> str:
    """Where labelme finds the photo; one that is no file, as a frame, is written beside."""
    if os.path.isfile(item_name):
        try:
            return Path(os.path.relpath(item_name, path.parent)).as_posix()
        except ValueError:  # on another drive
            return os.path.abspath(item_name)
    picture = path.with_suffix(".png")
    with atomic_path(picture) as temporary:
        Image.fromarray(pixels).save(temporary)
    return picture.name


@dataclass(slots=True)
class Records:
    """JSON Lines as photos come, and at the end what is made of them."""

    folder: Path
    kinds: frozenset[str]
    log: jsonl.Writer
    note: resume.Note
    is_begun: bool = False

    def write(
        self, item_name: str, stem: str, image_id: int, pixels: UInt8, detections: Detections
    ) -> None:
        """Save one photo's record: it is done."""
        with self._begun():
            self.log.add(item_name, detections, image_id)

    def close(self) -> list[str]:
        """Write what is made of the records; answers lines that say what is where."""
        with self._begun():
            self.log.finish()
        records = resume.log_path(self.folder, self.kinds)
        lines = []
        if "json" in self.kinds:
            path = self.folder / layout.RESULTS
            coco.write_from_jsonl(path, records)
            lines.append(f"COCO results: {path}")
        if "rle" in self.kinds:
            path = self.folder / layout.RLE
            rle.write_from_jsonl(path, records)
            lines.append(f"run lengths: {path}")
        if "jsonl" in self.kinds:
            return [*lines, f"JSON Lines: {records}"]
        resume.forget(self.folder)
        return lines

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Keep the note and the records beside it together, wherever the run is cut off.

        Records of an earlier run keep its note until the block replaces them, and stand for a
        moment without any: whoever is cut off there cannot be gone on with in a wrong way.
        """
        if self.is_begun:
            yield
            return
        had_old = self.log.has_old
        self.note.set_aside() if had_old else self.note.write()
        try:
            yield
        except BaseException:
            if self.log.has_old:
                self.note.put_back()
            raise
        if had_old:
            self.note.write()
        self.is_begun = True
