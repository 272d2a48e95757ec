"""`maskport export`: a checkpoint to an ONNX file that is checked against the eager model.

python -m export.onnx weights.pth -o model.onnx
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from maskport import __version__
from model.errors import MissingDependencyError, UsageError
from runtime.console import DONE, Parser, Steps, fraction, run, whole_number
from runtime.files import atomic_path
from runtime.next_step import next_step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir

    from export.check import CheckReport
    from export.tracing import GraphShape
    from model.checkpoint import Checkpoint, SpecOptions

SAMPLE_PHOTO = Path(__file__).resolve().parent / "data" / "shapes.jpg"
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: the file, what was read, and what the check said (None: not checked)."""

    path: Path
    checkpoint: Checkpoint
    size_bytes: int
    check: CheckReport | None


def export_onnx(
    weights: str | Path,
    output: str | Path,
    options: SpecOptions | None = None,
    shape: GraphShape | None = None,
    opset: int | None = None,
    check_photo: str | Path | None = SAMPLE_PHOTO,
    steps: Steps | None = None,
) -> ExportReport:
    """Export a checkpoint to ONNX with the `standard` lowering.

    Args:
        weights: a `.pth` or `.safetensors` file.
        output: where the ONNX file goes; nothing is left there when anything fails.
        options: what the weights cannot tell.
        shape: fixed sizes; dynamic by default.
        opset: ONNX operator set, default 18.
        check_photo: photo on which the file is compared with the eager model; None: no check.
        steps: where progress is shown.

    Raises:
        UsageError: an impossible option, or an output that would overwrite an input.
        CheckpointError: the weights cannot be read or are not known.
        ExportError: tracing failed, or the file differs from the eager model beyond the limits.
        ArtifactError: the output cannot be written.
    """
    from export.check import check_file
    from export.tracing import GraphShape, trace
    from model.checkpoint import load

    show = steps.begin if steps else lambda _: None
    output, shape, opset = Path(output), shape or GraphShape(), _opset(opset)
    _refuse_overwrite(output, weights, check_photo)
    photo = None if check_photo is None else _decode(Path(check_photo))
    show("reading the weights")
    checkpoint = load(weights, options)
    shape.check(checkpoint.spec.preprocess.size_divisor)
    # Claimed before the trace: an output that cannot be written must not cost one.
    with atomic_path(output) as temporary:
        if output.suffix.lower() != ".onnx":
            raise UsageError(f"-o {output}: expected a name that ends in .onnx")
        show("tracing the network")
        graph = trace(checkpoint.build(), shape, opset)
        show("writing the file")
        _write(graph, temporary, checkpoint, shape)
        report = None
        if photo is not None:
            show("checking it against the eager model")
            report = check_file(checkpoint, temporary, photo, Path(str(check_photo)).name)
    return ExportReport(output, checkpoint, output.stat().st_size, report)


def _refuse_overwrite(output: Path, *inputs: str | Path | None) -> None:
    for path in inputs:
        if path is not None and os.path.realpath(output) == os.path.realpath(path):
            raise UsageError(f"{output}: the output would overwrite this input; name another (-o)")


def _decode(path: Path) -> npt.NDArray[np.uint8]:
    from runtime.sources.photos import decode

    if not os.path.isfile(path):  # a pipe would block for ever
        raise UsageError(f"--check-image {path}: no such file; expected a photo")
    return decode(path)


def _write(graph: ir.Model, path: Path, checkpoint: Checkpoint, shape: GraphShape) -> None:
    import onnx
    import onnx_ir as ir

    from runtime.artifact import Manifest, to_metadata

    manifest = Manifest(
        target="onnxruntime",
        lowering="standard",
        precision="fp32",
        weights_sha256=checkpoint.sha256,
        batch=shape.batch,
        height=shape.height,
        width=shape.width,
        versions={
            "maskport": __version__,
            **{p: metadata.version(p) for p in ("torch", "torchvision", "onnx", "onnxscript")},
        },
    )
    graph.producer_name, graph.producer_version = "maskport", __version__
    graph.graph.name = checkpoint.spec.architecture
    graph.metadata_props.update(to_metadata(checkpoint.spec, manifest))
    ir.save(graph, path)
    onnx.checker.check_model(str(path))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_export, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport export", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="state dict, .pth or .safetensors")
    parser.add_argument("-o", "--output", type=Path, help="default: the weights' name with .onnx")
    graph = parser.add_argument_group("graph")
    graph.add_argument(
        "--size", metavar="HxW", help="fixed canvas, photos are shrunk to fit; default: dynamic"
    )
    graph.add_argument("--batch", type=whole_number, help="fixed batch; default: dynamic")
    graph.add_argument("--opset", type=int, help="ONNX operator set, default 18")
    says = parser.add_argument_group("what the weights cannot tell")
    says.add_argument("--short-side", type=whole_number, metavar="PX")
    says.add_argument("--long-side", type=whole_number, metavar="PX")
    says.add_argument("--score-threshold", type=fraction, metavar="P")
    says.add_argument("--nms-iou", type=fraction, metavar="IOU")
    says.add_argument("--detections", type=whole_number, metavar="D", help="per image")
    says.add_argument(
        "--candidates", type=whole_number, metavar="K", help="boxes that reach the last NMS"
    )
    says.add_argument("--norm-eps", type=float, metavar="EPS", help="of BatchNorm")
    says.add_argument("--names", help="class names: a file with one a line, or a,b,c")
    says.add_argument("--spec", type=Path, help="JSON file with any fields of the spec")
    check = parser.add_argument_group("check")
    check.add_argument("--check-image", type=Path, default=SAMPLE_PHOTO, help="photo to check on")
    check.add_argument("--no-check", action="store_true", help="do not run the file")
    return parser


def _export(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    _require_libraries()
    if not args.weights.name:
        raise UsageError(f"{args.weights}: expected a weights file")
    output = args.output or args.weights.with_suffix(".onnx")
    steps = Steps(3 if args.no_check else 4)
    report = export_onnx(
        args.weights,
        output,
        _options(args),
        _shape(args.size, args.batch),
        args.opset,
        None if args.no_check else args.check_image,
        steps,
    )
    steps.end()
    _print_report(report, args)
    return DONE


def _require_libraries() -> None:
    for name in ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"export needs {name}, which is not installed; pip install 'maskport[export]'"
            )


def _options(args: argparse.Namespace) -> SpecOptions:
    from model.checkpoint import SpecOptions, read_spec_file

    return SpecOptions(
        short_side=args.short_side,
        long_side=args.long_side,
        score_threshold=args.score_threshold,
        nms_iou=args.nms_iou,
        detections=args.detections,
        candidates=args.candidates,
        norm_eps=args.norm_eps,
        names=None if args.names is None else _names(args.names),
        overrides=None if args.spec is None else read_spec_file(args.spec),
    )


def _names(text: str) -> tuple[str, ...]:
    """Class names out of a file with one a line, or out of the text itself."""
    path = Path(text)
    if os.path.isfile(text):
        try:
            lines = path.read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--names {text}: not a readable UTF-8 file ({error})") from error
    elif "," not in text and (path.suffix or path.parent != Path(".")):
        raise UsageError(f"--names {text}: no such file; expected a file, or names like cat,dog")
    else:
        lines = text.split(",")
    return tuple(line.strip() for line in lines if line.strip())


def _shape(size: str | None, batch: int | None) -> GraphShape:
    from export.tracing import GraphShape

    if size is None:
        return GraphShape(batch=batch)
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(f"--size: expected HEIGHTxWIDTH like 800x1344, got '{size}'")
    return GraphShape(batch, int(match[1]), int(match[2]))


def _opset(opset: int | None) -> int:
    from export.tracing import DEFAULT_OPSET, OPSETS

    if opset is None:
        return DEFAULT_OPSET
    if opset not in OPSETS:
        raise UsageError(
            f"--opset: expected one of {', '.join(map(str, OPSETS))}, got {opset} "
            "(ONNX Runtime has no kernel for the RoiAlign of opset 22)"
        )
    return opset


def _print_report(report: ExportReport, args: argparse.Namespace) -> None:
    spec = report.checkpoint.spec
    sizes = "dynamic canvas" if args.size is None else f"canvas {args.size}"
    batch = "dynamic batch" if args.batch is None else f"batch {args.batch}"
    print(
        f"{report.path} · {report.size_bytes / 1e6:.0f} MB · {spec.architecture} · "
        f"{spec.num_foreground} classes · {sizes}, {batch}"
    )
    for assumption in report.checkpoint.assumptions:
        print(f"assumed: {assumption}")
    if report.check is not None:
        print(f"checked: {report.check}")
    photo = os.path.relpath(args.check_image)
    print(next_step("predict", report.path, photo, "-o", "out"))


if __name__ == "__main__":
    sys.exit(main())
