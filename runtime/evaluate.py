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

from runtime.cli.console import DONE, Bar, Parser, run, thread_count
from runtime.cli.next_command import next_step
from runtime.compare.coco_annotations import (
    labelled_photos,
    read_truth,
    require_common_categories,
    unusable_annotations,
)
from runtime.compare.coco_ap import ApResult, evaluate
from runtime.files import atomic_path, make_folder
from runtime.formats.coco import rows
from runtime.predictor import Predictor

SCHEMA_VERSION = 1
_SHOWN = (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"), ("ar100", "AR100"))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_evaluate, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an exported .onnx file, or a checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances JSON")
    parser.add_argument("--run-dir", type=Path, help="write evaluate.json there")
    parser.add_argument("--backend", help="onnxruntime or torch; default: by the file's suffix")
    parser.add_argument(
        "--threads", type=thread_count, help="threads of the network; default: all cores"
    )
    return parser


def _evaluate(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    truth = read_truth(args.annotations)
    photos = labelled_photos(truth, args.images)
    if args.run_dir is not None:
        make_folder(args.run_dir)
    coco_rows: list[Mapping[str, Any]] = []
    with Predictor.open(args.artifact, backend=args.backend, threads=args.threads) as predictor:
        require_common_categories(predictor.spec.classes, truth, args.annotations)
        iou_types = ("bbox",) if predictor.spec.mask is None else ("bbox", "segm")
        bar = Bar(len(photos), "photos")
        results = predictor.stream(photos.values())
        for image_id, result in zip(photos, results, strict=True):
            if result.error is not None:
                raise result.error
            assert result.detections is not None
            coco_rows += rows(result.detections, image_id)
            bar.advance()
        print(f"{len(photos)} photos · {predictor.times}")
    try:
        scores = {
            iou_type: evaluate(truth, coco_rows, iou_type, list(photos))  # type: ignore[arg-type]
            for iou_type in iou_types
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise unusable_annotations(args.annotations, error) from error
    for iou_type, ap in scores.items():
        print(f"{'box ' if iou_type == 'bbox' else 'mask'} {_line(ap)}")
    if args.run_dir is not None:
        _write(args.run_dir, args.artifact, len(photos), scores)
    print(next_step("predict", args.artifact, args.images, "-o", "out"))
    return DONE


def _line(ap: ApResult) -> str:
    return " · ".join(f"{shown} {100 * getattr(ap, name):.2f}" for name, shown in _SHOWN)


def _write(folder: Path, artifact: Path, photos: int, scores: Mapping[str, ApResult]) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "artifact": artifact.name,
        "photos": photos,
        **{iou_type: asdict(ap) for iou_type, ap in scores.items()},
    }
    with atomic_path(folder / "evaluate.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
