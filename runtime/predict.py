"""`maskport predict`: run an artifact on photos; overlays and results come out.

python -m runtime.predict model.onnx photos -o out
"""

from __future__ import annotations

import itertools
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.errors import ArtifactError, ImageError, UsageError
from runtime.console import DONE, FAILED, Bar, Parser, complain, run
from runtime.detections import Detections
from runtime.files import atomic_path
from runtime.formats import coco, jsonl
from runtime.next_step import next_step
from runtime.predictor import InexactResultWarning, Predictor
from runtime.sources.photos import find_photos

KINDS = ("overlay", "json", "jsonl")


@dataclass(frozen=True, slots=True)
class _Found:
    """One photo's result, kept for the files that are written at the end."""

    path: Path
    image_id: int
    detections: Detections


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_predict, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport predict", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an exported .onnx file, or a checkpoint")
    parser.add_argument("photos", nargs="+", help="image files, folders or glob patterns")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out"), help="folder, default out"
    )
    parser.add_argument(
        "--save",
        default="overlay,json",
        help=f"what to write, of {','.join(KINDS)} (default %(default)s)",
    )
    parser.add_argument("--score-threshold", type=float, help="drop rows below this score")
    parser.add_argument(
        "--backend", help="onnxruntime, tensorrt or torch; default by the file's suffix"
    )
    parser.add_argument("--threads", type=int, help="threads of the network, default all cores")
    parser.add_argument(
        "--on-inexact",
        choices=("warn", "raise", "ignore"),
        default="warn",
        help="when a fixed graph cannot certify its NMS for a photo; default warn",
    )
    parser.add_argument(
        "--runtime-cache", type=Path, metavar="FILE", help="TensorRT-RTX: keeps compiled kernels"
    )
    parser.add_argument("--sha256", metavar="HASH", help="refuse an artifact with another hash")
    return parser


def _predict(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    kinds = _kinds(args.save)
    photos = find_photos(args.photos)
    overlays = _overlays(photos, args.output) if "overlay" in kinds else None
    opened = Predictor.open(
        args.artifact,
        backend=args.backend,
        threads=args.threads,
        on_inexact=args.on_inexact,
        sha256=args.sha256,
        runtime_cache=args.runtime_cache,
    )
    with opened as predictor:
        _make_folder(args.output)
        found, failed = _run(predictor, photos, args.score_threshold, overlays)
        written = _write(found, predictor, kinds, args.output)
        print(f"{len(found)} photos · {predictor.times}")
    for line in written:
        print(line)
    if failed:
        complain(f"{failed} of {len(photos)} photos could not be used")
        return FAILED
    print(next_step("evaluate", "--help"))
    return DONE


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(k for k in text.split(",") if k)
    unknown = [k for k in kinds if k not in KINDS]
    if unknown or not kinds:
        raise UsageError(f"--save: expected some of {', '.join(KINDS)}, got '{text}'")
    return kinds


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot make the output folder ({error.strerror}); name another with -o"
        ) from error


def _run(
    predictor: Predictor,
    photos: Sequence[Path],
    score_threshold: float | None,
    overlays: Sequence[Path] | None,
) -> tuple[list[_Found], int]:
    """Predict photo by photo; one bad photo is reported and does not stop the others."""
    found: list[_Found] = []
    bar = Bar(len(photos), "photos")
    ids = _image_ids(photos)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("once", InexactResultWarning)
        for index, path in enumerate(photos):
            try:
                pixels = predictor.decode(path)
                detections = predictor.predict(pixels, score_threshold=score_threshold)
            except ImageError as error:
                where = "" if str(path) in str(error) else f"{path}: "
                complain(f"{where}{error}")
            else:
                found.append(_Found(path, ids[index], detections))
                if overlays is not None:
                    _save_overlay(overlays[index], pixels, detections)
            bar.advance()
    return found, len(photos) - len(found)


def _overlays(photos: Sequence[Path], folder: Path) -> list[Path]:
    """One file per photo: its stem, with a number where two photos share it.

    Raises:
        UsageError: an overlay would replace one of the photos.
    """
    given = {path.resolve() for path in photos}
    taken: set[str] = set()
    overlays = []
    for path in photos:
        candidates = (f"{path.stem}{f'-{n}' if n > 1 else ''}.png" for n in itertools.count(1))
        name = next(name for name in candidates if name not in taken)
        taken.add(name)
        if (folder / name).resolve() in given:
            raise UsageError(f"-o {folder}: {name} would replace a photo; name another folder")
        overlays.append(folder / name)
    return overlays


def _image_ids(photos: Sequence[Path]) -> list[int]:
    """COCO photos are named by their id; where one is not, or two share it, all are numbered."""
    stems = [path.stem for path in photos]
    if all(stem.isdecimal() for stem in stems) and len({int(s) for s in stems}) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(len(photos)))


def _id_rule(found: Sequence[_Found]) -> str:
    named = all(f.path.stem.isdecimal() and int(f.path.stem) == f.image_id for f in found)
    return "the number in the photo's name" if named else "the photo's place in the list, from 0"


def _save_overlay(path: Path, pixels: npt.NDArray[np.uint8], detections: Detections) -> None:
    picture: Image.Image = detections.draw(pixels)
    with atomic_path(path) as temporary:
        picture.save(temporary)


def _write(
    found: Sequence[_Found], predictor: Predictor, kinds: Sequence[str], folder: Path
) -> list[str]:
    written = []
    if "overlay" in kinds and found:
        written.append(f"overlays: {folder}")
    if "json" in kinds:
        path = folder / "results.json"
        coco.write(path, ((f.image_id, f.detections) for f in found), predictor.spec.classes)
        written.append(f"COCO results: {path} (image_id: {_id_rule(found)})")
    if "jsonl" in kinds:
        path = folder / "results.jsonl"
        jsonl.write(path, ((str(f.path), f.detections) for f in found))
        written.append(f"JSON Lines: {path}")
    return written


if __name__ == "__main__":
    sys.exit(main())
