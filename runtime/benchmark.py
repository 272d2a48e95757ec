"""`maskport benchmark`: artifacts side by side on the same photos; times, memory, results.

python -m runtime.benchmark model.onnx model.int8.onnx --images DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import MissingDependencyError, UsageError
from runtime.cli.console import (
    DONE,
    FAILED,
    Bar,
    Parser,
    complain,
    fraction,
    run,
    thread_count,
    whole_number,
)
from runtime.cli.next_command import next_step
from runtime.files import atomic_path, make_folder
from runtime.sources.photos import find_photos

if TYPE_CHECKING:
    from runtime.benchmarking.quality import Labels, Quality
    from runtime.benchmarking.race import Race
    from runtime.benchmarking.report import Against


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_benchmark, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="maskport benchmark",
        description=__doc__.splitlines()[0],
        epilog="Each artifact runs in a process of its own; they take turns, photo by photo. A "
        "first pass over all photos is not timed: it warms up, and gives the detections that are "
        "compared, one photo per call. Then come --repeats timed passes, from file to run "
        "lengths, and one pass that streams.",
    )
    parser.add_argument(
        "artifacts", nargs="+", type=Path, metavar="ARTIFACT", help="the first is compared with"
    )
    parser.add_argument("--images", required=True, help="folder or glob pattern of the photos")
    parser.add_argument("--limit", type=whole_number, help="take the first so many photos")
    parser.add_argument(
        "--annotations", type=Path, help="COCO instances JSON: AP in place of agreement"
    )
    parser.add_argument(
        "--repeats", type=whole_number, default=3, help="timed passes, default %(default)s"
    )
    parser.add_argument(
        "--batch", type=whole_number, default=1, help="photos of one call, default %(default)s"
    )
    parser.add_argument(
        "--threads", type=thread_count, help="threads of each network on the CPU, default all cores"
    )
    parser.add_argument("--backend", help="of all artifacts; default by each file's suffix")
    parser.add_argument("--device", help="cpu, cuda or cuda:1; default by the backend")
    parser.add_argument("--score-threshold", type=fraction, help="drop rows below this score")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("benchmark-out"),
        help="benchmark.json and benchmark.png go there, default %(default)s",
    )
    parser.add_argument(
        "--only-speed",
        action="store_true",
        help="compare no results and draw nothing; needs no maskport[eval]",
    )
    return parser


def _benchmark(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    labels = _labels(args)
    photos = list(labels.image_ids) if labels is not None else find_photos([args.images])
    photos = list(dict.fromkeys(photos))[: args.limit]
    _check(args)
    against = _against(args)
    raced = _race(args, photos, labels, against)
    qualities = _qualities(raced, labels, against)
    _report(args, raced, qualities, against)
    if raced.left_out:
        complain(f"{raced.left_out} of {len(photos)} photos could not be used")
        return FAILED
    print(next_step("predict", args.artifacts[0], args.images, "-o", "out"))
    return DONE


def _check(args: argparse.Namespace) -> None:
    """What would only fail after the long part."""
    make_folder(args.run_dir)
    if args.only_speed:
        return
    from runtime.benchmarking.picture import require_matplotlib

    require_matplotlib()
    if _against(args) is None:
        return
    try:
        import pycocotools  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "comparing results needs pycocotools; pip install 'maskport[eval]', or --only-speed"
        ) from error


def _against(args: argparse.Namespace) -> Against | None:
    if args.only_speed:
        return None
    if args.annotations is not None:
        return "labels"
    return "first" if len(args.artifacts) > 1 else None


def _labels(args: argparse.Namespace) -> Labels | None:
    """Annotations and the photos that they name.

    Raises:
        UsageError: annotations that cannot be used, or go with --only-speed.
    """
    if args.annotations is None:
        return None
    if args.only_speed:
        raise UsageError("--annotations: --only-speed compares no results; leave one of them out")
    from runtime.benchmarking.quality import Labels
    from runtime.compare.coco_annotations import labelled_photos, read_truth

    truth = read_truth(args.annotations)
    photos = labelled_photos(truth, Path(args.images))
    return Labels(args.annotations, truth, {path: image_id for image_id, path in photos.items()})


def _race(
    args: argparse.Namespace,
    photos: Sequence[Path],
    labels: Labels | None,
    against: Against | None,
) -> Race:
    from runtime.benchmarking.quality import require_comparable, require_labels
    from runtime.benchmarking.race import Plan, race
    from runtime.benchmarking.worker import Setting

    settings = [
        Setting(path, args.backend, args.device, args.threads, args.score_threshold)
        for path in args.artifacts
    ]
    plan = Plan(args.repeats, args.batch)

    def admit(artifacts: Sequence[Any]) -> None:
        if labels is not None:
            require_labels(artifacts, labels)
        elif against == "first":
            require_comparable(artifacts)

    bar = Bar(plan.steps(len(photos), len(settings)), "photos")
    return race(settings, photos, plan, bar.advance, admit)


def _qualities(raced: Race, labels: Labels | None, against: Against | None) -> list[Quality | None]:
    from runtime.benchmarking.quality import against_first, against_labels

    if labels is not None:
        return [against_labels(lap.seen, raced.photos, labels) for lap in raced.laps]
    if against is None:
        return [None] * len(raced.laps)
    first, *others = raced.laps
    return [None, *(against_first(first.seen, lap.seen) for lap in others)]


def _report(
    args: argparse.Namespace,
    raced: Race,
    qualities: Sequence[Quality | None],
    against: Against | None,
) -> None:
    from runtime.benchmarking import report

    found = report.entries(raced.laps, qualities)
    setup = {
        "photos": len(raced.photos),
        "left_out": raced.left_out,
        "repeats": args.repeats,
        "batch": args.batch,
        "threads": args.threads,
        "backend": args.backend,
        "device": args.device,
        "score_threshold": args.score_threshold,
    }
    print(f"{len(raced.photos)} photos, {args.repeats} timed passes, batch {args.batch}")
    print(report.table(found, against))
    path = args.run_dir / "benchmark.json"
    with atomic_path(path) as temporary:
        text = json.dumps(report.document(found, against, setup), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", "utf-8")
    print(f"numbers: {path}")
    if not args.only_speed:
        from runtime.benchmarking.picture import draw

        draw(found, args.run_dir / "benchmark.png")
        print(f"picture: {args.run_dir / 'benchmark.png'}")


if __name__ == "__main__":
    sys.exit(main())
