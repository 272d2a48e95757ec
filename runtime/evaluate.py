"""`maskport evaluate`: COCO AP of an artifact on labeled photos.

python -m runtime.evaluate model.onnx --images DIR --annotations FILE.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.annotations.labeled_photos import find_labeled_photos
from runtime.annotations.labels import labels_for
from runtime.cli.console import DONE, Bar, Parser, plural, printable, run, thread_count
from runtime.cli.next_command import next_step
from runtime.compare.coco_ap import ApResult
from runtime.compare.coco_ap import evaluate as score
from runtime.compare.coco_inputs import IouType
from runtime.files import atomic_path, make_folder
from runtime.formats.coco import rows
from runtime.predictor import Predictor

SCHEMA_VERSION = 1
_SHOWN = ("ap", "ap50", "ap75")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """AP by IoU type ("bbox", and "segm" if model and labels have masks), with mean times."""

    photos: int
    scores: Mapping[IouType, ApResult]
    times: str


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_evaluate, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an exported .onnx file, or a checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances JSON")
    parser.add_argument("--run-dir", type=Path, help="write evaluate.json there")
    parser.add_argument("--backend", help="onnxruntime or torch; default: by the suffix")
    parser.add_argument(
        "--threads", type=thread_count, help="threads of the network; default: all cores"
    )
    return parser


def evaluate(
    artifact: str | Path,
    images: str | Path,
    annotations: str | Path,
    backend: str | None = None,
    threads: int | None = None,
) -> Evaluation:
    """COCO AP of an artifact on annotated photos.

    Args:
        artifact: an exported .onnx file, an engine, or a checkpoint.
        images: folder of the photos.
        annotations: COCO instances JSON; its photos are evaluated.
        backend: "onnxruntime" or "torch"; default by the file's suffix.
        threads: threads of the network; default all cores.

    Raises:
        UsageError: annotations that AP cannot be computed from, or without a photo in the folder.
        ArtifactError: the artifact cannot be used.
        ImageError: a photo cannot be decoded.
        MissingDependencyError: pycocotools is not installed.
    """
    found = find_labeled_photos(Path(annotations), Path(images))
    photos = found.photos
    coco_rows: list[Mapping[str, Any]] = []
    with Predictor.open(artifact, backend=backend, threads=threads) as predictor:
        labels = labels_for(found, predictor.spec)
        for notice in labels.notices:
            print(printable(notice))
        bar = Bar(len(photos), "photos")
        results = predictor.stream(photos.values())
        for image_id, result in zip(photos, results, strict=True):
            if result.error is not None:
                raise result.error
            assert result.detections is not None
            coco_rows += rows(result.detections, image_id)
            bar.advance()
        times = str(predictor.times)
    scores: dict[IouType, ApResult] = {
        one: score(labels.document, coco_rows, one, list(photos))
        for one in labels.iou_types
        if one != "keypoints"
    }
    return Evaluation(len(photos), scores, times)


def _evaluate(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.run_dir is not None:
        make_folder(args.run_dir)
    result = evaluate(args.artifact, args.images, args.annotations, args.backend, args.threads)
    print(f"{plural(result.photos, 'photo')} · {result.times}")
    for iou_type, ap in result.scores.items():
        print(f"{'box ' if iou_type == 'bbox' else 'mask'} {_line(ap)}")
    if args.run_dir is not None:
        _write(args.run_dir, args.artifact, result)
    print(next_step("predict", args.artifact, args.images, "-o", "out"))
    return DONE


def _line(ap: ApResult) -> str:
    names = (*_SHOWN, f"ar{ap.max_detections}")
    return " · ".join(f"{name.upper()} {100 * ap.numbers[name]:.2f}" for name in names)


def _write(folder: Path, artifact: Path, result: Evaluation) -> None:
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "artifact": artifact.name,
        "photos": result.photos,
        **{iou_type: dict(ap.numbers) for iou_type, ap in result.scores.items()},
    }
    with atomic_path(folder / "evaluate.json") as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
