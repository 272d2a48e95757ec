"""Writes the results of a run, one photo after the other, in every chosen format.

Memory holds one photo. A file is written whole or not at all, and the photo's record is written
last: a photo with a record is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from model.arrays import UInt8
from model.errors import UsageError
from model.spec import ModelSpec
from runtime.closing import Closing
from runtime.detections import Detections
from runtime.files import atomic_path, make_folder
from runtime.formats import coco, crops, jsonl, labelme, layout, resume, rle, yolo
from runtime.formats.lock import FolderLock
from runtime.sources.items import ItemName
from runtime.sources.photos import decode

_PhotoWriter = Callable[[Path, ItemName, UInt8, Detections], None]

FORMATS = ("overlay", "json", "jsonl", "rle", "crops", "yolo", "labelme")


def require_formats(formats: Collection[str]) -> None:
    """Require at least one format, and known names only.

    Raises:
        UsageError: Otherwise.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        got = f"'{unknown[0]}'" if unknown else "nothing"
        raise UsageError(f"--save: expected some of {', '.join(FORMATS)}, got {got}")


class ResultWriter(Closing):
    """Writes into one folder, which it creates and locks.

    Args:
        formats: Names out of `FORMATS`.
        folder: Of the results.
        spec: Of the model.
        resume_run: Append to an earlier run, whose photos (`runtime.formats.resume.done_ids`) must
            not be written again; otherwise the first record replaces its records.
        settings: Options that change the results, as JSON data: a run is resumed with the same
            settings only.
        labelme_shape: The type of labelme's shapes for masks.

    Raises:
        UsageError: The model has no masks for a format, the run cannot be resumed, or another run
            is writing into the folder.
        ArtifactError: The folder or a file cannot be created.
    """

    def __init__(
        self,
        formats: Collection[str],
        folder: Path,
        spec: ModelSpec,
        resume_run: bool = False,
        settings: Mapping[str, Any] | None = None,
        labelme_shape: labelme.MaskShape = "polygon",
    ) -> None:
        if "rle" in formats and spec.mask is None:
            raise UsageError("--save: rle needs masks, and this model has none; use json")
        if labelme_shape == "mask" and spec.mask is None:
            raise UsageError("--labelme-shape: mask needs masks, and this model has none; omit it")
        make_folder(folder, "-o")
        self._formats, self._folder, self._spec = frozenset(formats), folder, spec
        self._write_photo: Mapping[str, _PhotoWriter] = {
            **_PHOTO_FILES,
            "labelme": partial(_write_labelme, labelme_shape),
        }
        self._has_photos = self._has_begun = False
        self._lock = FolderLock(folder)
        try:
            self._settings = resume.RunSettings(folder, formats, settings or {})
            if resume_run:
                self._settings.require_same()
            self._log = jsonl.Writer(resume.log_path(folder, formats), resume=resume_run)
        except BaseException:
            self._lock.close()
            raise

    def write_files(self, item: ItemName, pixels: UInt8, detections: Detections) -> None:
        """Write a photo's files; photos may come in any order and from several threads.

        Args:
            item: The photo's name and stem.
            pixels: uint8 [H, W, 3] RGB, as detected on.
            detections: In the photo.

        Raises:
            ArtifactError: A file cannot be written.
        """
        for name, write in self._write_photo.items():
            if name in self._formats:
                write(self._folder, item, pixels, detections)
        self._has_photos = True

    def write_record(self, item: ItemName, detections: Detections) -> None:
        """Write a photo's record, after its files; one call at a time.

        Raises:
            ArtifactError: The record cannot be written.
        """
        with self._recording():
            self._log.add(item.name, detections, item.image_id, item.sha256)

    def finish(self) -> list[str]:
        """Write the files of the run; returns a line per format with its path.

        Raises:
            ArtifactError: A file cannot be written.
        """
        with self._recording():
            self._log.finish()
        return [*self._finish_photo_files(), *self._finish_records()]

    def close(self) -> None:
        """Close the records and unlock the folder; a later run can resume."""
        with self._lock:
            self._log.close()

    def _finish_photo_files(self) -> Iterator[str]:
        folder = self._folder
        if "overlay" in self._formats and self._has_photos:
            yield f"overlays: {folder}"
        if "crops" in self._formats and (parent := layout.crops(folder, "any").parent).is_dir():
            yield f"cutouts: {parent}"
        if "yolo" in self._formats:
            yolo.write_names(folder, self._spec)
            parent = layout.labels(folder, "any").parent
            yield f"YOLO labels: {parent} (classes: {folder / layout.CLASSES})"
        if "labelme" in self._formats and (parent := layout.labelme(folder, "any").parent).is_dir():
            yield f"labelme files: {parent}"

    def _finish_records(self) -> Iterator[str]:
        records = resume.log_path(self._folder, self._formats)
        if "json" in self._formats:
            path = self._folder / layout.RESULTS
            coco.write_from_jsonl(path, records)
            yield f"COCO results: {path}"
        if "rle" in self._formats:
            path = self._folder / layout.RLE
            rle.write_from_jsonl(path, records)
            yield f"run lengths: {path}"
        if "jsonl" in self._formats:
            yield f"JSON Lines: {records}"
        else:
            resume.forget(self._folder)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Keep records and settings consistent, wherever a run is interrupted.

        Records of an earlier run keep its settings until the block replaces them. In between the
        records have no settings, so that a run interrupted there cannot be resumed by mistake.
        """
        if self._has_begun:
            yield
            return
        had_old = self._log.has_old
        self._settings.set_aside() if had_old else self._settings.write()
        try:
            yield
        except BaseException:
            if self._log.has_old:
                self._settings.put_back()
            raise
        if had_old:
            self._settings.write()
        self._has_begun = True


def _write_overlay(folder: Path, item: ItemName, pixels: UInt8, detections: Detections) -> None:
    picture = detections.draw(pixels)
    with atomic_path(layout.overlay(folder, item.stem)) as temporary:
        picture.save(temporary)


def _write_crops(folder: Path, item: ItemName, pixels: UInt8, detections: Detections) -> None:
    crops.write(layout.crops(folder, item.stem), pixels, detections)


def _write_labels(folder: Path, item: ItemName, pixels: UInt8, detections: Detections) -> None:
    path = layout.labels(folder, item.stem)
    make_folder(path.parent, "-o")
    yolo.write(path, detections)


def _write_labelme(
    mask_shape: labelme.MaskShape,
    folder: Path,
    item: ItemName,
    pixels: UInt8,
    detections: Detections,
) -> None:
    path = layout.labelme(folder, item.stem)
    make_folder(path.parent, "-o")
    photo = _labelme_photo(item.name, path, pixels, detections.image_hw)
    labelme.write(path, detections, photo, mask_shape)


def _labelme_photo(name: str, path: Path, pixels: UInt8, image_hw: tuple[int, int]) -> str:
    """The photo's path relative to the labelme file.

    A video frame, and a photo that labelme cannot open, is written beside it.
    """
    is_file = os.path.isfile(name)
    if is_file and labelme.is_opened(name):
        photo = _relative(name, path.parent)
        if "\\" not in photo:  # a separator to labelme on every system
            return photo
    if is_file and pixels.shape[:2] != image_hw:  # decoded at a fraction of its size
        pixels = decode(name)
    picture = path.with_suffix(".png")
    with atomic_path(picture) as temporary:
        Image.fromarray(pixels).save(temporary)
    return picture.name


def _relative(name: str, folder: Path) -> str:
    """The path of a file from a folder, whose `..` leaves the folder that a link leads to."""
    parent, base = os.path.split(name)
    path = os.path.join(os.path.realpath(parent), base)
    with suppress(ValueError):  # on another drive
        path = os.path.relpath(path, os.path.realpath(folder))
    return Path(path).as_posix()


_PHOTO_FILES: Mapping[str, _PhotoWriter] = {
    "overlay": _write_overlay,
    "crops": _write_crops,
    "yolo": _write_labels,
}
