"""The files that a run writes: those of each photo, and those of the run.

A photo's files are named by its stem, made valid as a file name.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from runtime.formats.names import file_stem

RESULTS, RLE, JSONL = "results.json", "rle.json", "results.jsonl"
CLASSES, DATA = "classes.txt", "data.yaml"
_RUN_FILES = {"json": (RESULTS,), "jsonl": (JSONL,), "rle": (RLE,), "yolo": (CLASSES, DATA)}


def overlay(folder: Path, stem: str) -> Path:
    """The photo with the detections drawn on it."""
    return folder / f"{file_stem(stem)}.png"


def crops(folder: Path, stem: str) -> Path:
    """The folder of a photo's cutouts, `<row>-<class>.png`."""
    return folder / "crops" / file_stem(stem)


def labels(folder: Path, stem: str) -> Path:
    """The YOLO labels."""
    return folder / "labels" / f"{file_stem(stem)}.txt"


def labelme(folder: Path, stem: str) -> Path:
    """The labelme file; a frame or photo written beside it has the suffix .png."""
    return folder / "labelme" / f"{file_stem(stem)}.json"


def of_photo(formats: Collection[str], folder: Path, stem: str) -> list[Path]:
    """The files of one photo, and the folder whose files may be replaced."""
    by_format = {
        "overlay": [overlay(folder, stem)],
        "crops": [crops(folder, stem)],
        "yolo": [labels(folder, stem)],
        "labelme": [labelme(folder, stem), labelme(folder, stem).with_suffix(".png")],
    }
    return [path for name, paths in by_format.items() if name in formats for path in paths]


def of_run(formats: Collection[str], folder: Path) -> list[Path]:
    """The files that a run writes once."""
    return [folder / file for name in _RUN_FILES if name in formats for file in _RUN_FILES[name]]
