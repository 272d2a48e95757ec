"""`maskport predict`: run an artifact on photos, videos or a camera; pictures and results come out.

python -m runtime.predict model.onnx photos -o out
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from model.errors import ImageError, UsageError
from model.spec_json import to_json
from runtime.cli.console import (
    DONE,
    FAILED,
    Parser,
    add_alias,
    complain,
    fraction,
    remark,
    run,
    thread_count,
    whole_number,
)
from runtime.cli.image_ids import NumberedItems
from runtime.cli.next_command import next_step
from runtime.cli.overwrite_guard import Originals
from runtime.cli.photo_progress import PhotoProgress
from runtime.formats.result_writer import FORMATS, ResultWriter, require_formats
from runtime.formats.resume import done_ids
from runtime.postprocessing.certificate import UncertifiedResultWarning
from runtime.predictor import Predictor
from runtime.selection import SelectionOptions, parse_score_threshold
from runtime.sources.items import Item
from runtime.sources.live import is_live, live_name
from runtime.sources.open import open_sources
from runtime.stream import Streamed

_MOST_REPEATS = 5
_NEED_ALL_PIXELS = ("overlay", "crops")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_predict, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="maskport predict",
        description=__doc__.splitlines()[0],
        epilog="An interrupted run (Ctrl-C, status 130) goes on with --resume. A camera or network "
        "stream is ended by Ctrl-C, also with status 130: its result files are then complete.",
    )
    parser.add_argument("artifact", type=Path, help="an exported .onnx, an .engine or a checkpoint")
    parser.add_argument(
        "photos",
        nargs="+",
        help="images, folders, globs, lists (.txt), videos, camera:0; - is a list on stdin; "
        "what is named twice is taken once",
    )
    parser.add_argument(
        "--extra-artifact",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the same model exported for another canvas; each photo takes the one that suits it",
    )
    add_alias(parser, "--also", "extra_artifact", type=Path, action="append")
    _add_output(parser.add_argument_group("what is written"))
    _add_wanted(parser.add_argument_group("what is kept of a result"))
    _add_running(parser.add_argument_group("how it runs"))
    return parser


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder, default out")
    group.add_argument(
        "--save",
        default="overlay,json",
        metavar="FORMATS",
        help=f"some of {','.join(FORMATS)} (default %(default)s)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on behind an earlier run with the same options into the same folder; not for "
        "cameras and network streams",
    )


def _add_wanted(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--score-threshold",
        metavar="T[,CLASS=T…]",
        help="least score, and others for single classes: 0.5,person=0.7",
    )
    group.add_argument("--mask-threshold", type=fraction, help="default the model's, usually 0.5")
    group.add_argument("--top-k", type=whole_number, help="at most so many rows of a photo")
    group.add_argument("--classes", metavar="A,B…", help="only these, by name")
    group.add_argument("--min-area", type=float, metavar="PX", help="least area in pixels")


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frame-stride",
        type=whole_number,
        default=1,
        metavar="N",
        help="every N-th frame of a video",
    )
    add_alias(group, "--every", "frame_stride", type=whole_number)
    group.add_argument(
        "--batch", type=whole_number, default=1, help="photos of one call, default 1"
    )
    group.add_argument(
        "--backend",
        help="onnxruntime, onnxruntime-tensorrt, tensorrt or torch; default by the file's suffix",
    )
    group.add_argument("--device", help="cpu, cuda or cuda:N; default the backend's own")
    group.add_argument(
        "--threads", type=thread_count, help="threads of the network, default all cores"
    )
    group.add_argument(
        "--workers", type=whole_number, default=2, help="threads beside it (default %(default)s)"
    )
    group.add_argument(
        "--scaled-decode",
        action="store_true",
        help="decode large JPEGs at a fraction of their size: faster, results differ a little",
    )
    group.add_argument(
        "--on-uncertified",
        choices=("warn", "raise", "ignore"),
        default="warn",
        help="when a fixed graph cannot certify its NMS for a photo; default warn",
    )
    add_alias(group, "--on-inexact", "on_uncertified", choices=("warn", "raise", "ignore"))
    group.add_argument(
        "--runtime-cache", type=Path, metavar="FILE", help="TensorRT-RTX: keeps compiled kernels"
    )
    group.add_argument("--sha256", metavar="HASH", help="refuse an artifact with another hash")


def _predict(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    formats = _names(args.save)
    wanted = _wanted(args)
    _check_formats(formats, args.scaled_decode)
    live = [place for place in args.photos if is_live(place)]
    if live and args.resume:
        raise UsageError(
            f"--resume: {live_name(live[0])} never gives the same frames again; name another "
            "folder, and leave --resume out"
        )
    source = open_sources(args.photos, args.frame_stride, repeated=_Repeats().add)
    known = source.known()
    originals = Originals(args.photos, known, args.output, formats)
    originals.require_safe(known)
    work = NumberedItems(source)
    opened = Predictor.open(
        [args.artifact, *args.extra_artifact],
        backend=args.backend,
        device=args.device,
        threads=args.threads,
        on_uncertified=args.on_uncertified,
        sha256=args.sha256,
        runtime_cache=args.runtime_cache,
        scaled_decode=args.scaled_decode,
    )
    with opened as predictor:
        predictor.check(batch_size=args.batch, **wanted)
        settings = _settings(args, predictor, wanted)
        results = ResultWriter(formats, args.output, predictor.spec, args.resume, settings)
        with results as writer:
            # The writer has truncated a partial record of an interrupted run.
            done = done_ids(args.output, formats) if args.resume else {}
            work.require_ids(done, args.output)
            run_ = _Run(work, done, writer, originals)
            is_whole = run_.stream(predictor, wanted, args.batch, args.workers, bool(live))
            written = writer.finish()
        print(_summary(run_.progress, predictor))
    return _report(written, formats, run_, is_whole)


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _check_formats(formats: Sequence[str], scaled_decode: bool) -> None:
    """Before anything is opened: what can be told without the model."""
    require_formats(formats)
    if scaled_decode and (needing := [name for name in formats if name in _NEED_ALL_PIXELS]):
        raise UsageError(
            f"--scaled-decode: {', '.join(needing)} are drawn from the whole photo; leave it out, "
            "or --save without them"
        )


def _wanted(args: argparse.Namespace) -> SelectionOptions:
    wanted: SelectionOptions = {
        "mask_threshold": args.mask_threshold,
        "top_k": args.top_k,
        "min_area_px": args.min_area,
    }
    if args.score_threshold is not None:
        wanted["score_threshold"] = parse_score_threshold(args.score_threshold)
    if args.classes is not None:
        wanted["classes"] = _names(args.classes)
    return wanted


def _settings(
    args: argparse.Namespace, predictor: Predictor, wanted: SelectionOptions
) -> Mapping[str, Any]:
    """What decides the results: a run does not go on after one that was made otherwise."""
    manifests = [artifact.manifest for artifact in predictor.artifacts]
    classes = wanted.get("classes")
    return {
        **wanted,
        "classes": None if classes is None else sorted(set(classes)),
        "weights": manifests[0].weights_sha256,
        # Whole, so that a run that is refused can be told which of its parts differs.
        "spec": json.loads(to_json(predictor.spec)),
        "target": sorted({manifest.target for manifest in manifests}),
        "lowering": sorted({manifest.lowering for manifest in manifests}),
        "precision": sorted({manifest.precision for manifest in manifests}),
        "canvases": [[manifest.height, manifest.width] for manifest in manifests],
        "batch": args.batch,
        "every": args.frame_stride,  # the name that earlier runs wrote
        "scaled_decode": args.scaled_decode,
    }


class _Repeats:
    """Says that a photo was named twice; of very many it names the first."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, name: str) -> None:
        self._count += 1
        if self._count <= _MOST_REPEATS:
            remark(f"{name}: named more than once, taken once")
        elif self._count == _MOST_REPEATS + 1:
            remark("more photos were named more than once; each is taken once")


class _Run:
    """One pass over the photos: files are written beside the network, records in order."""

    def __init__(
        self, work: NumberedItems, done: Collection[str], writer: ResultWriter, originals: Originals
    ) -> None:
        self.work = work
        self.done = len(done)
        self._items = work.items(done)
        self._originals = originals
        self._writer = writer
        left = None if work.count is None else max(work.count - len(done), 0)
        self.progress = PhotoProgress(left)

    def stream(
        self,
        predictor: Predictor,
        wanted: SelectionOptions,
        batch_size: int,
        workers: int,
        is_live: bool,
    ) -> bool:
        """Predict and write all of them; a photo that cannot be used is reported.

        Returns:
            Whether it came to the end of the photos. A live source has none: an interrupt ends it.

        Raises:
            MaskportError: the artifact or the disk failed; what was written stays.
            KeyboardInterrupt: where nothing is live; what was written can be gone on with.
        """
        results = predictor.stream(
            self._checked(),
            batch_size=batch_size,
            workers=workers,
            depth=workers + 3,
            then=self._write_files,
            keep_pixels=True,
            **wanted,
        )
        is_whole = True
        try:
            with warnings.catch_warnings(), closing(results):
                warnings.simplefilter("once", UncertifiedResultWarning)
                for result in results:
                    self._take(result)
        except KeyboardInterrupt:
            if not is_live:
                raise
            is_whole = False
        self.progress.close()
        return is_whole

    def _checked(self) -> Iterator[Item]:
        with closing(self._items):
            yield from map(self._originals.checked, self._items)

    def _write_files(self, result: Streamed) -> None:
        assert result.item is not None
        assert result.pixels is not None
        assert result.detections is not None
        self._writer.write_files(result.item, result.pixels, result.detections)

    def _take(self, result: Streamed) -> None:
        if isinstance(result.error, ImageError):
            complain(_named(result))
        elif result.error is not None:
            raise result.error
        else:
            assert result.item is not None
            assert result.detections is not None
            self._writer.write_record(result.item, result.detections)
        self.progress.advance(result.seconds, failed=result.error is not None)


def _named(result: Streamed) -> str:
    assert result.item is not None
    name, message = result.item.name, str(result.error)
    return message if name in message else f"{name}: {message}"


def _summary(progress: PhotoProgress, predictor: Predictor) -> str:
    count = progress.photos - progress.failed
    # A mean over no photo says nothing.
    return f"{count} photos · {predictor.times}" if count else "0 photos"


def _report(written: Sequence[str], formats: Sequence[str], run_: _Run, is_whole: bool) -> int:
    if run_.done:
        print(f"{run_.done} photos were done before")
    for line in written:
        print(line)
    if "json" in formats:
        print(f"image_id: {run_.work.id_rule}")
    if run_.progress.failed:
        complain(f"{run_.progress.failed} of {run_.progress.photos} photos could not be used")
    if not is_whole:
        raise KeyboardInterrupt
    if run_.progress.failed:
        return FAILED
    print(next_step("evaluate", "--help"))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
