"""Where in its folder a run writes what: the files of each photo, and those of the run.

A photo's files are named by its stem, made fit for a file name. Whoever must not write over
something asks here before anything is written.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from runtime.formats.names import file_stem

RESULTS, RLE, JSONL = "results.json", "rle.json", "results.jsonl"
CLASSES, DATA = "classes.txt", "data.yaml"
_OF_A_RUN = {"json": (RESULTS,), "jsonl": (JSONL,), "rle": (RLE,), "yolo": (CLASSES, DATA)}


def overlay(folder: Path, stem: str) -> Path:
    """The photo with the detections drawn on it."""
    return folder / f"{file_stem(stem)}.png"


def crops(folder: Path, stem: str) -> Path:
    """The folder of a photo's cutouts."""
    return folder / "crops" / file_stem(stem)


def labels(folder: Path, stem: str) -> Path:
    """The YOLO labels."""
    return folder / "labels" / f"{file_stem(stem)}.txt"


def labelme(folder: Path, stem: str) -> Path:
    """The labelme file; a frame is written beside it, with the suffix .png."""
    return folder / "labelme" / f"{file_stem(stem)}.json"


def of_photo(kinds: Collection[str], folder: Path, stem: str) -> list[Path]:
    """What is written of one photo: files, and the folder whose files may be replaced."""
    places = {
        "overlay": [overlay(folder, stem)],
        "crops": [crops(folder, stem)],
        "yolo": [labels(folder, stem)],
        "labelme": [labelme(folder, stem), labelme(folder, stem).with_suffix(".png")],
    }
    return [path for kind, paths in places.items() if kind in kinds for path in paths]


def of_run(kinds: Collection[str], folder: Path) -> list[Path]:
    """The files that a run writes once."""
    return [folder / name for kind, names in _OF_A_RUN.items() if kind in kinds for name in names]
