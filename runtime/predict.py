"""`maskport predict`: detect objects in photos, videos or camera streams and write the results.

python -m runtime.predict model.onnx photos -o out
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from model.arrays import UInt8
from model.errors import ImageError, UsageError
from model.spec_json import to_json
from runtime.cli.console import (
    DONE,
    FAILED,
    Parser,
    add_alias,
    fraction,
    plural,
    print_error,
    print_note,
    run,
    thread_count,
    whole_number,
)
from runtime.cli.image_ids import NumberedItems
from runtime.cli.next_command import next_step
from runtime.cli.overwrite_guard import OverwriteGuard
from runtime.cli.photo_options import add_photo_options
from runtime.cli.photo_progress import PhotoProgress
from runtime.cli.spec_options import add_spec_options, spec_options
from runtime.drawing.source_image import displayed, require_bands
from runtime.formats.labelme import MASK_SHAPES, MaskShape
from runtime.formats.result_writer import FORMATS, ResultWriter, require_formats
from runtime.formats.resume import done_ids
from runtime.postprocessing.certificate import UncertifiedResultWarning
from runtime.predictor import Predictor
from runtime.selection import SelectionOptions, parse_score_threshold
from runtime.sources.items import Item
from runtime.sources.live import is_live, live_name
from runtime.sources.open import open_sources
from runtime.sources.pixel_format import Pixels
from runtime.stream import Streamed

_MAX_REPEAT_NOTES = 5
_NEED_ALL_PIXELS = ("overlay", "crops")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_predict, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="maskport predict",
        description=__doc__.splitlines()[0],
        epilog="Resume an interrupted run (Ctrl-C, status 130) with --resume. Ctrl-C also ends a "
        "camera or network stream, with status 130 and complete result files.",
    )
    parser.add_argument("artifact", type=Path, help="an exported .onnx, an .engine or a checkpoint")
    parser.add_argument(
        "photos",
        nargs="+",
        help="images, folders, globs, lists (.txt), videos, camera:0; - reads a list from stdin; "
        "duplicates are skipped",
    )
    parser.add_argument(
        "--extra-artifact",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the same model exported for another canvas; each photo uses the best-fitting one",
    )
    add_alias(parser, "--also", "extra_artifact", type=Path, action="append")
    add_photo_options(parser)
    _add_output(parser.add_argument_group("output"))
    _add_selection(parser.add_argument_group("selection of results"))
    _add_execution(parser.add_argument_group("execution"))
    add_spec_options(parser, score_threshold=False)
    return parser


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o", "--output", type=Path, default=Path("out"), help="folder; default: out"
    )
    group.add_argument(
        "--save",
        default="overlay,json",
        metavar="FORMATS",
        help=f"comma-separated: {', '.join(FORMATS)}; default: %(default)s",
    )
    group.add_argument(
        "--labelme-shape",
        choices=MASK_SHAPES,
        help="labelme files: a polygon per part of a mask, or one mask; default: polygon",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue an earlier run with the same options in the same folder; not for cameras "
        "and network streams",
    )


def _add_selection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--score-threshold",
        metavar="T[,CLASS=T…]",
        help="minimum score, also by class: 0.5,person=0.7",
    )
    group.add_argument(
        "--mask-threshold",
        type=fraction,
        metavar="P",
        help="minimum probability of foreground; default: the model's, usually 0.5",
    )
    group.add_argument("--top-k", type=whole_number, help="at most this many rows per photo")
    group.add_argument("--classes", metavar="A,B…", help="only these class names")
    group.add_argument("--min-area", type=float, metavar="PX", help="minimum area in pixels")


def _add_execution(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--frame-stride",
        type=whole_number,
        default=1,
        metavar="N",
        help="use every N-th frame of a video",
    )
    add_alias(group, "--every", "frame_stride", type=whole_number)
    group.add_argument("--batch", type=whole_number, default=1, help="photos per call; default: 1")
    group.add_argument(
        "--backend",
        help="onnxruntime, onnxruntime-tensorrt, tensorrt or torch; default: by the suffix",
    )
    group.add_argument("--device", help="cpu, cuda or cuda:N; default: by the backend")
    group.add_argument(
        "--threads", type=thread_count, help="threads of the network; default: all cores"
    )
    group.add_argument(
        "--workers",
        type=whole_number,
        default=2,
        help="threads for decoding and results; default: %(default)s",
    )
    group.add_argument(
        "--scaled-decode",
        action="store_true",
        help="decode large JPEGs at a fraction of their size: faster, but results differ slightly",
    )
    group.add_argument(
        "--on-uncertified",
        choices=("warn", "raise", "ignore"),
        default="warn",
        help="if a fixed graph cannot certify its NMS for a photo; default: warn",
    )
    add_alias(group, "--on-inexact", "on_uncertified", choices=("warn", "raise", "ignore"))
    group.add_argument(
        "--runtime-cache", type=Path, metavar="FILE", help="TensorRT-RTX: cache of kernels"
    )
    group.add_argument("--sha256", metavar="HASH", help="refuse an artifact with another hash")


def _predict(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    formats = _names(args.save)
    options = _selection_options(args)
    _check_formats(formats, args.scaled_decode, args.labelme_shape)
    live = [source for source in args.photos if is_live(source)]
    if live and args.resume:
        raise UsageError(
            f"--resume: {live_name(live[0])} is live and cannot be resumed; omit --resume and name "
            "another folder"
        )
    source = open_sources(args.photos, args.frame_stride, on_repeat=_Repeats().add)
    known = source.known()
    guard = OverwriteGuard(args.photos, known, args.output, formats)
    guard.require_safe(known)
    items = NumberedItems(source)
    opened = Predictor.open(
        [args.artifact, *args.extra_artifact],
        backend=args.backend,
        device=args.device,
        threads=args.threads,
        on_uncertified=args.on_uncertified,
        sha256=args.sha256,
        runtime_cache=args.runtime_cache,
        scaled_decode=args.scaled_decode,
        options=spec_options(args, score_threshold=False),
        config=args.config,
        value_range=args.value_range,
    )
    with opened as predictor:
        predictor.check(batch_size=args.batch, **options)
        form = predictor.pixel_format
        require_bands(args.bands, form.channels)
        settings = _settings(args, predictor, options)
        shape: MaskShape = args.labelme_shape or "polygon"
        results = ResultWriter(
            formats, args.output, predictor.spec, args.resume, settings, labelme_shape=shape
        )
        with results as writer:
            # The writer has truncated a partial record of an interrupted run.
            done = done_ids(args.output, formats) if args.resume else {}
            items.require_ids(done, args.output)
            run_ = _Run(items, done, writer, guard, partial(displayed, form=form, bands=args.bands))
            is_complete = run_.stream(predictor, options, args.batch, args.workers, bool(live))
            written = writer.finish()
        print(_summary(run_.progress, predictor))
    return _report(written, formats, run_, is_complete)


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _check_formats(
    formats: Sequence[str], scaled_decode: bool, labelme_shape: MaskShape | None
) -> None:
    """Check what needs no model."""
    require_formats(formats)
    if labelme_shape is not None and "labelme" not in formats:
        raise UsageError("--labelme-shape: no labelme files are written; add --save labelme")
    if scaled_decode and (needing := [name for name in formats if name in _NEED_ALL_PIXELS]):
        raise UsageError(
            f"--scaled-decode: {', '.join(needing)} are drawn from the whole photo; omit it, or "
            "--save without them"
        )


def _selection_options(args: argparse.Namespace) -> SelectionOptions:
    options: SelectionOptions = {
        "mask_threshold": args.mask_threshold,
        "top_k": args.top_k,
        "min_area_px": args.min_area,
    }
    if args.score_threshold is not None:
        options["score_threshold"] = parse_score_threshold(args.score_threshold)
    if args.classes is not None:
        options["classes"] = _names(args.classes)
    return options


def _settings(
    args: argparse.Namespace, predictor: Predictor, options: SelectionOptions
) -> Mapping[str, Any]:
    """Everything that changes the results: only a run with equal settings can be resumed."""
    manifests = [artifact.manifest for artifact in predictor.artifacts]
    classes = options.get("classes")
    return {
        **options,
        "classes": None if classes is None else sorted(set(classes)),
        "weights": manifests[0].weights_sha256,
        # In full, so that an error can name the part that differs.
        "spec": json.loads(to_json(predictor.spec)),
        "target": sorted({manifest.target for manifest in manifests}),
        "lowering": sorted({manifest.lowering for manifest in manifests}),
        "precision": sorted({manifest.precision for manifest in manifests}),
        "canvases": [[manifest.height, manifest.width] for manifest in manifests],
        "batch": args.batch,
        "every": args.frame_stride,  # the key of existing runs
        "scaled_decode": args.scaled_decode,
        "value_range": args.value_range,
        "bands": args.bands,
        # Runs before this option wrote polygons.
        "labelme_shape": None if args.labelme_shape == "polygon" else args.labelme_shape,
    }


class _Repeats:
    """Prints a note for each of the first photos that were named twice."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, name: str) -> None:
        self._count += 1
        if self._count <= _MAX_REPEAT_NOTES:
            print_note(f"{name}: listed more than once; repeats are skipped")
        elif self._count == _MAX_REPEAT_NOTES + 1:
            print_note("more photos are listed more than once; repeats are skipped")


class _Run:
    """One pass over the photos: files are written in worker threads, records in order."""

    def __init__(
        self,
        items: NumberedItems,
        done: Collection[str],
        writer: ResultWriter,
        guard: OverwriteGuard,
        shown: Callable[[Pixels], UInt8],
    ) -> None:
        self.id_rule = items.id_rule
        self.done = len(done)
        self._items = items.items(done)
        self._guard = guard
        self._shown = shown
        self._writer = writer
        remaining = None if items.count is None else max(items.count - len(done), 0)
        self.progress = PhotoProgress(remaining)

    def stream(
        self,
        predictor: Predictor,
        options: SelectionOptions,
        batch_size: int,
        workers: int,
        is_live: bool,
    ) -> bool:
        """Predict and write all photos; one that cannot be used is reported.

        Returns:
            Whether all photos are done; False if an interrupt ended a live source.

        Raises:
            MaskportError: the artifact or the disk failed; written files stay.
            KeyboardInterrupt: no source is live; the run can be resumed.
        """
        results = predictor.stream(
            self._checked(),
            batch_size=batch_size,
            workers=workers,
            depth=workers + 3,
            then=self._write_files,
            keep_pixels=True,
            **options,
        )
        is_complete = True
        try:
            with warnings.catch_warnings(), closing(results):
                warnings.simplefilter("once", UncertifiedResultWarning)
                for result in results:
                    self._record(result)
        except KeyboardInterrupt:
            if not is_live:
                raise
            is_complete = False
        self.progress.close()
        return is_complete

    def _checked(self) -> Iterator[Item]:
        with closing(self._items):
            yield from map(self._guard.checked, self._items)

    def _write_files(self, result: Streamed) -> None:
        assert result.item is not None
        assert result.pixels is not None
        assert result.detections is not None
        self._writer.write_files(result.item, self._shown(result.pixels), result.detections)

    def _record(self, result: Streamed) -> None:
        if isinstance(result.error, ImageError):
            print_error(result.error)
        elif result.error is not None:
            raise result.error
        else:
            assert result.item is not None
            assert result.detections is not None
            self._writer.write_record(result.item, result.detections)
        self.progress.advance(result.seconds, failed=result.error is not None)


def _summary(progress: PhotoProgress, predictor: Predictor) -> str:
    count = progress.photos - progress.failed
    return f"{plural(count, 'photo')} · {predictor.times}" if count else "0 photos"


def _report(written: Sequence[str], formats: Sequence[str], run_: _Run, is_complete: bool) -> int:
    if run_.done:
        print(f"{plural(run_.done, 'photo')} of the earlier run")
    for line in written:
        print(line)
    if "json" in formats:
        print(f"image_id: {run_.id_rule}")
    if run_.progress.failed:
        total = plural(run_.progress.photos, "photo")
        print_error(f"{run_.progress.failed} of {total} could not be used")
    if not is_complete:
        raise KeyboardInterrupt
    if run_.progress.failed:
        return FAILED
    print(next_step("evaluate", "--help"))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
