"""`maskport evaluate`: COCO AP of an artifact on labeled photos.

python -m runtime.evaluate model.onnx --images DIR --annotations FILE.json
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import get_args

from model.errors import UsageError
from model.spec_options import SpecOptions
from runtime.annotations.labeled_photos import find_labeled_photos
from runtime.annotations.labels import Labels, labels_for
from runtime.cli.console import DONE, Parser, printable, run, thread_count, whole_number
from runtime.cli.next_command import next_step
from runtime.cli.photo_options import add_value_range
from runtime.cli.spec_options import add_spec_options, spec_arguments, spec_options
from runtime.compare.coco_evaluators import (
    Evaluator,
    default_evaluator,
    evaluator_version,
    require_evaluator,
)
from runtime.evaluation.detect import detect, detected_before
from runtime.evaluation.report import ErrorChange, Evaluation, lines, write
from runtime.evaluation.score import ScoreOptions, Scorer
from runtime.files import make_folder
from runtime.formats.coco import CocoRow
from runtime.predictor import Predictor
from runtime.sources.pixel_format import ValueRange


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_evaluate, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="an exported .onnx file, or a checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances JSON")
    parser.add_argument(
        "--run-dir",
        type=Path,
        help="write evaluate.json and the detections there; an interrupted run continues",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OTHER",
        help="another artifact, or the --run-dir of its evaluation: which errors cost more AP",
    )
    _add_numbers(parser.add_argument_group("numbers"))
    execution = parser.add_argument_group("execution")
    add_value_range(execution)
    execution.add_argument("--backend", help="onnxruntime or torch; default: by the suffix")
    execution.add_argument(
        "--threads", type=thread_count, help="threads of the network; default: all cores"
    )
    add_spec_options(parser)
    return parser


def _add_numbers(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--max-detections",
        type=whole_number,
        metavar="N",
        help="detections that count per photo and class; default: the artifact's number where it "
        "is above 100, else 100; for keypoints COCO's 20",
    )
    group.add_argument("--per-class", action="store_true", help="also the numbers of each class")
    group.add_argument(
        "--sigmas",
        type=_sigmas,
        default=(),
        metavar="S,S…",
        help="falloff of each keypoint in OKS; default: COCO's for 17 keypoints, else their mean",
    )
    group.add_argument(
        "--evaluator",
        choices=get_args(Evaluator),
        help="both give the same numbers; default: hotcoco if it is installed",
    )


def evaluate(
    artifact: str | Path,
    images: str | Path,
    annotations: str | Path,
    backend: str | None = None,
    threads: int | None = None,
    *,
    run_dir: str | Path | None = None,
    against: str | Path | None = None,
    max_detections: int | None = None,
    per_class: bool = False,
    sigmas: Sequence[float] = (),
    evaluator: Evaluator | None = None,
    spec: SpecOptions | None = None,
    config: Path | None = None,
    value_range: ValueRange | None = None,
) -> Evaluation:
    """COCO AP of an artifact on annotated photos.

    Args:
        artifact: an exported .onnx file, an engine, or a checkpoint.
        images: folder of the photos.
        annotations: COCO instances JSON; its photos are evaluated.
        backend: "onnxruntime" or "torch"; default by the file's suffix.
        threads: threads of the network; default all cores.
        run_dir: folder for the detections, in which an interrupted run continues.
        against: another artifact, or the `run_dir` of its evaluation; adds what each kind of error
            costs in both.
        max_detections: per photo and class; None takes the artifact's number where it is above
            100, else 100, and COCO's 20 for keypoints.
        per_class: also compute the numbers of each class.
        sigmas: falloff of each keypoint in OKS, as fractions of the object's size; by default
            COCO's for 17 keypoints, else their mean for each.
        evaluator: "hotcoco" or "pycocotools"; None takes hotcoco if it is installed.
        spec: fields of the spec that a checkpoint does not hold.
        config: the framework's own configuration of a checkpoint.
        value_range: of the photos, see `runtime.predictor.Predictor`.

    Raises:
        UsageError: annotations that AP cannot be computed from; a run folder of another artifact,
            of other annotations or photos; another number of sigmas than keypoints.
        ArtifactError: the artifact cannot be used.
        ImageError: a photo cannot be decoded.
        MissingDependencyError: pycocotools is not installed, or hotcoco for `against`.
    """
    evaluator = evaluator or default_evaluator()
    require_evaluator(evaluator)
    if against is not None:
        require_evaluator("hotcoco", "comparing errors needs")
    folder = None if run_dir is None else Path(run_dir)
    options = ScoreOptions(max_detections, sigmas, per_class, evaluator)
    found = find_labeled_photos(Path(annotations), Path(images))
    with ExitStack() as opened:
        predictor = opened.enter_context(
            Predictor.open(
                artifact,
                backend=backend,
                threads=threads,
                options=spec,
                config=config,
                value_range=value_range,
            )
        )
        labels = labels_for(found, predictor.spec)
        for notice in labels.notices:
            print(printable(notice))
        scorer = Scorer(labels, predictor.spec, options)
        other = None
        if against is not None:
            # Checked before the first photo, run after the last.
            other = _other(Path(against), labels, predictor, threads, opened)
        detected = detect(predictor, labels, folder)
        errors = None
        if against is not None and other is not None:
            before = other(None if folder is None else folder / "against")
            name = Path(against).resolve().name
            errors = ErrorChange(name, scorer.costs(before), scorer.costs(detected.rows))
    return Evaluation(
        photos=len(labels.photos),
        resumed=detected.resumed,
        scores=scorer.scores(detected.rows),
        class_names={one["id"]: one["name"] for one in labels.document["categories"]},
        evaluator=evaluator_version(evaluator),
        notes=scorer.notes(),
        times=detected.times,
        errors=errors,
    )


def _other(
    path: Path, labels: Labels, first: Predictor, threads: int | None, opened: ExitStack
) -> Callable[[Path | None], list[CocoRow]]:
    """Open another artifact, or a finished run of it; returns what gives its detections.

    The callable takes the folder of an artifact's records.
    """
    spec, value_range = first.spec, first.pixel_format.value_range
    if path.is_dir():
        rows = detected_before(path, labels, spec)
        return lambda _: rows
    predictor = opened.enter_context(Predictor.open(path, threads=threads, value_range=value_range))
    if predictor.spec.classes != spec.classes:
        raise UsageError(
            f"--against: {path} has other classes, so errors cannot be compared; name another "
            "artifact of this model"
        )
    return lambda folder: detect(predictor, labels, folder).rows


def _evaluate(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.run_dir is not None:
        make_folder(args.run_dir)
    result = evaluate(
        args.artifact,
        args.images,
        args.annotations,
        args.backend,
        args.threads,
        run_dir=args.run_dir,
        against=args.against,
        max_detections=args.max_detections,
        per_class=args.per_class,
        sigmas=args.sigmas,
        evaluator=args.evaluator,
        spec=spec_options(args),
        config=args.config,
        value_range=args.value_range,
    )
    for line in lines(result):
        print(line)
    if args.run_dir is not None:
        write(args.run_dir, args.artifact, result)
    print(next_step("predict", args.artifact, args.images, "-o", "out", *spec_arguments(args)))
    return DONE


def _sigmas(text: str) -> tuple[float, ...]:
    """An argparse type: positive numbers, separated by commas."""
    with suppress(ValueError):
        sigmas = tuple(map(float, text.split(",")))
        if all(0 < one < math.inf for one in sigmas):
            return sigmas
    raise argparse.ArgumentTypeError(f"expected positive numbers as 0.05,0.1, got '{text}'")


if __name__ == "__main__":
    sys.exit(main())
