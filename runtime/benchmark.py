"""`maskport benchmark`: compare times, memory and results of artifacts on the same photos.

python -m runtime.benchmark model.onnx model.int8.onnx --images DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import UsageError
from runtime.cli.console import (
    DONE,
    FAILED,
    Bar,
    Parser,
    fraction,
    plural,
    print_error,
    printable,
    run,
    thread_count,
    whole_number,
)
from runtime.cli.figure import require_matplotlib
from runtime.cli.next_command import next_step
from runtime.cli.photo_options import add_value_range
from runtime.cli.spec_options import add_spec_options, spec_arguments, spec_options
from runtime.files import atomic_path, make_folder
from runtime.sessions.open import backend_of
from runtime.sources.photos import find_photos

if TYPE_CHECKING:
    from runtime.annotations.labeled_photos import LabeledPhotos
    from runtime.annotations.labels import Labels
    from runtime.artifacts.metadata import Artifact
    from runtime.benchmarking.passes import Measurements
    from runtime.benchmarking.quality import Quality
    from runtime.benchmarking.report import Against


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_benchmark, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="maskport benchmark",
        description=__doc__.splitlines()[0],
        epilog="Each artifact runs in its own process; they run in turn, photo by photo. The "
        "first pass is not timed: it warms up, and its detections, from one photo per call, are "
        "compared. --repeats timed passes, from file to run lengths, and one streamed pass follow.",
    )
    parser.add_argument(
        "artifacts", nargs="+", type=Path, metavar="ARTIFACT", help="the first is the reference"
    )
    parser.add_argument("--images", required=True, help="folder or glob pattern of the photos")
    parser.add_argument("--limit", type=whole_number, help="use the first N photos", metavar="N")
    parser.add_argument(
        "--annotations", type=Path, help="COCO instances JSON: AP instead of agreement"
    )
    parser.add_argument(
        "--repeats", type=whole_number, default=3, help="timed passes; default: %(default)s"
    )
    parser.add_argument(
        "--batch", type=whole_number, default=1, help="photos per call; default: %(default)s"
    )
    parser.add_argument(
        "--threads",
        type=thread_count,
        help="threads of each network on the CPU; default: all cores",
    )
    parser.add_argument("--backend", help="for all artifacts; default: by suffix")
    parser.add_argument("--device", help="cpu, cuda or cuda:1; default: by the backend")
    add_value_range(parser)
    parser.add_argument("--score-threshold", type=fraction, help="drop results below this score")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("benchmark-out"),
        help="folder for benchmark.json and benchmark.png; default: %(default)s",
    )
    parser.add_argument(
        "--only-speed",
        action="store_true",
        help="no comparison of results and no plot; does not need maskport[eval]",
    )
    add_spec_options(parser, score_threshold=False)
    return parser


def _benchmark(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    labeled = _labeled(args)
    photos = find_photos([args.images]) if labeled is None else list(labeled.photos.values())
    photos = list(dict.fromkeys(photos))[: args.limit]
    _check(args)
    against = _against(args)
    measured, labels = _measure(args, photos, labeled, against)
    qualities = _qualities(measured, labels, against)
    _report(args, measured, qualities, against)
    if measured.left_out:
        print_error(f"{measured.left_out} of {plural(len(photos), 'photo')} could not be used")
        return FAILED
    again = [args.artifacts[0], args.images, "-o", "out"]
    if backend_of(args.artifacts[0]) == "torch":
        again += spec_arguments(args)
    print(next_step("predict", *again))
    return DONE


def _check(args: argparse.Namespace) -> None:
    """Check before the measurement what is needed after it."""
    make_folder(args.run_dir)
    if args.only_speed:
        return
    require_matplotlib("benchmark.png", ", or pass --only-speed")
    if _against(args) is not None:
        from runtime.compare.coco_evaluators import require_pycocotools

        require_pycocotools("comparing results needs", ", or pass --only-speed")


def _against(args: argparse.Namespace) -> Against | None:
    if args.only_speed:
        return None
    if args.annotations is not None:
        return "labels"
    return "first" if len(args.artifacts) > 1 else None


def _labeled(args: argparse.Namespace) -> LabeledPhotos | None:
    """The photos that the annotations name; None without --annotations."""
    if args.annotations is None:
        return None
    if args.only_speed:
        raise UsageError("--annotations: --only-speed compares no results; leave one of them out")
    from runtime.annotations.labeled_photos import find_labeled_photos

    found = find_labeled_photos(args.annotations, Path(args.images), allow_unreadable=True)
    return found.only(list(found.photos)[: args.limit])


def _measure(
    args: argparse.Namespace,
    photos: Sequence[Path],
    labeled: LabeledPhotos | None,
    against: Against | None,
) -> tuple[Measurements, list[Labels]]:
    """Measurements, and with labels those for each artifact."""
    from runtime.annotations.labels import labels_for
    from runtime.benchmarking.passes import Plan, measure
    from runtime.benchmarking.quality import require_comparable
    from runtime.benchmarking.worker import OpenOptions

    labels: list[Labels] = []
    spec = spec_options(args, score_threshold=False)
    options = [
        OpenOptions(
            path,
            args.backend,
            args.device,
            args.threads,
            args.score_threshold,
            spec=spec if backend_of(path) == "torch" else None,
            config=args.config if backend_of(path) == "torch" else None,
            value_range=args.value_range,
        )
        for path in args.artifacts
    ]
    given = spec_arguments(args, score_threshold=False)
    if given and all(one.spec is None for one in options):
        raise UsageError(
            f"{given[0]}: for a checkpoint, whose spec is not complete; every "
            "artifact contains its spec"
        )
    plan = Plan(args.repeats, args.batch)

    def check_artifacts(artifacts: Sequence[Artifact]) -> None:
        if labeled is not None:
            labels.extend(labels_for(labeled, artifact.spec) for artifact in artifacts)
            for notice in dict.fromkeys(line for one in labels for line in one.notices):
                print(printable(notice))
        elif against == "first":
            require_comparable(artifacts)

    bar = Bar(plan.steps(len(photos), len(options)), "photos")
    return measure(options, photos, plan, bar.advance, check_artifacts), labels


def _qualities(
    measured: Measurements, labels: Sequence[Labels], against: Against | None
) -> list[Quality | None]:
    from runtime.benchmarking.quality import against_first, against_labels

    if labels:
        pairs = zip(measured.artifacts, labels, strict=True)
        return [against_labels(a.results, measured.photos, own) for a, own in pairs]
    if against is None:
        return [None] * len(measured.artifacts)
    first, *others = measured.artifacts
    return [None, *(against_first(first.results, other.results) for other in others)]


def _report(
    args: argparse.Namespace,
    measured: Measurements,
    qualities: Sequence[Quality | None],
    against: Against | None,
) -> None:
    from runtime.benchmarking import report

    artifacts = report.entries(measured.artifacts, qualities)
    setup = {
        "photos": len(measured.photos),
        "left_out": measured.left_out,
        "repeats": args.repeats,
        "batch": args.batch,
        "threads": args.threads,
        "backend": args.backend,
        "device": args.device,
        "score_threshold": args.score_threshold,
    }
    photos, passes = plural(len(measured.photos), "photo"), plural(args.repeats, "timed pass", "es")
    print(f"{photos}, {passes}, batch {args.batch}")
    for measurement in measured.artifacts:
        for line in measurement.artifact.assumptions:
            print(f"assumed of {measurement.artifact.path}: {printable(line)}")
    print(report.table(artifacts, against))
    path = args.run_dir / "benchmark.json"
    with atomic_path(path) as temporary:
        text = json.dumps(report.document(artifacts, against, setup), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", "utf-8")
    print(f"numbers: {path}")
    if not args.only_speed:
        report.draw(artifacts, args.run_dir / "benchmark.png")
        print(f"plot: {args.run_dir / 'benchmark.png'}")


if __name__ == "__main__":
    sys.exit(main())
