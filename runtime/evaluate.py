"""`maskport evaluate`: COCO AP of an artifact on labelled photos.

python -m runtime.evaluate model.onnx --images DIR --annotations FILE.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.errors import ImageError, UsageError
from model.spec import ClassSpec
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.console import DONE, Bar, Parser, run
from runtime.files import atomic_path, make_folder
from runtime.formats.coco import rows
from runtime.next_step import next_step
from runtime.predictor import Predictor

SCHEMA_VERSION = 1
_SHOWN = (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"), ("ar100", "AR100"))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_evaluate, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an exported .onnx file, or a checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances JSON")
    parser.add_argument("--run-dir", type=Path, help="write evaluate.json there")
    parser.add_argument("--backend", help="onnxruntime or torch; default by the file's suffix")
    parser.add_argument("--threads", type=int, help="threads of the network, default all cores")
    return parser


def _evaluate(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    truth = _read_truth(args.annotations)
    photos = _labelled_photos(truth, args.images)
    if args.run_dir is not None:
        make_folder(args.run_dir)
    found: list[Mapping[str, Any]] = []
    with Predictor.open(args.artifact, backend=args.backend, threads=args.threads) as predictor:
        _require_common_categories(predictor.spec.classes, truth, args.annotations)
        kinds = ("bbox",) if predictor.spec.mask is None else ("bbox", "segm")
        bar = Bar(len(photos), "photos")
        results = predictor.stream(photos.values())
        for image_id, result in zip(photos, results, strict=True):
            if result.detections is None:
                raise result.error or ImageError(f"{result.photo}: no result")
            found += rows(result.detections, image_id, predictor.spec.classes)
            bar.advance()
        print(f"{len(photos)} photos · {predictor.times}")
    try:
        scores = {kind: evaluate(truth, found, kind, list(photos)) for kind in kinds}  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(
            f"{args.annotations}: pycocotools cannot use it ({type(error).__name__}: {error}); "
            "expected COCO instances with sizes of images and boxes, areas, segmentations"
        ) from error
    for kind, ap in scores.items():
        print(f"{'box ' if kind == 'bbox' else 'mask'} {_line(ap)}")
    if args.run_dir is not None:
        _write(args.run_dir, args.artifact, len(photos), scores)
    print(next_step("predict", args.artifact, args.images, "-o", "out"))
    return DONE


def _require_common_categories(
    classes: ClassSpec, truth: Mapping[str, Any], annotations: Path
) -> None:
    """An AP of 0 because labels mean other things on the two sides is worth an error."""
    theirs = {category["id"] for category in truth["categories"]}
    if not theirs & {classes.dataset_id(label) for label in range(len(classes.names))}:
        raise UsageError(
            f"{annotations}: none of its category ids {sorted(theirs)[:5]} is one that the model "
            f"can answer; set 'classes.dataset_ids' with --spec when you export"
        )


def _line(ap: ApResult) -> str:
    return " · ".join(f"{shown} {100 * getattr(ap, name):.2f}" for name, shown in _SHOWN)


def _read_truth(path: Path) -> Mapping[str, Any]:
    try:
        truth = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(truth, dict) or not {"images", "annotations", "categories"} <= set(truth):
        raise UsageError(f"{path}: expected COCO's images, annotations and categories")
    if not all(isinstance(truth[part], list) for part in ("images", "annotations", "categories")):
        raise UsageError(f"{path}: expected lists of images, annotations and categories")
    if not all(isinstance(c, dict) and "id" in c for c in truth["categories"]):
        raise UsageError(f"{path}: expected an id of every category")
    if not all(isinstance(i, dict) and {"id", "file_name"} <= set(i) for i in truth["images"]):
        raise UsageError(f"{path}: expected an id and a file_name of every image")
    return truth


def _labelled_photos(truth: Mapping[str, Any], folder: Path) -> dict[int, Path]:
    """Labelled photos that are in the folder; the others are counted in an error if all lack."""
    named = {image["id"]: folder / image["file_name"] for image in truth["images"]}
    present = {image_id: path for image_id, path in named.items() if path.is_file()}
    if not present:
        raise UsageError(
            f"{folder}: none of the {len(named)} labelled photos is there; expected for instance "
            f"{next(iter(named.values()), folder).name}"
        )
    if len(present) < len(named):
        print(f"{len(named) - len(present)} labelled photos are not in {folder}; left out")
    return present


def _write(folder: Path, artifact: Path, photos: int, scores: Mapping[str, ApResult]) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "artifact": artifact.name,
        "photos": photos,
        **{kind: asdict(ap) for kind, ap in scores.items()},
    }
    with atomic_path(folder / "evaluate.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
