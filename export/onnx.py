"""`maskport export`: a checkpoint to an ONNX file that is checked against the eager model.

    python -m export.onnx weights.pth -o model.onnx
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from maskport import __version__
from model.errors import UsageError
from runtime.console import DONE, Parser, Steps, run
from runtime.files import atomic_path

if TYPE_CHECKING:
    import onnx_ir as ir

    from export.check import CheckReport
    from export.tracing import GraphShape
    from model.checkpoint import Checkpoint, SpecOptions

SAMPLE_PHOTO = Path(__file__).resolve().parent / "data" / "shapes.jpg"
_SIZE = re.compile(r"(\d+)x(\d+)")


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
        CheckpointError: the weights cannot be read or are not known.
        ExportError: tracing failed, or the file differs from the eager model beyond the limits.
        ArtifactError: the output cannot be written.
    """
    from export.check import check_file
    from export.tracing import DEFAULT_OPSET, GraphShape, trace
    from model.checkpoint import load
    from runtime.sources.photos import decode

    show = steps.begin if steps else lambda _: None
    output, shape = Path(output), shape or GraphShape()
    photo = None if check_photo is None else decode(Path(check_photo))
    show("reading the weights")
    checkpoint = load(weights, options)
    shape.check(checkpoint.spec.preprocess.size_divisor)
    show("tracing the network")
    graph = trace(checkpoint.build(), shape, opset or DEFAULT_OPSET)
    with atomic_path(output) as temporary:
        show("writing the file")
        _write(graph, temporary, checkpoint, shape)
        report = None
        if photo is not None:
            show("checking it against the eager model")
            report = check_file(checkpoint, temporary, photo, Path(str(check_photo)).name)
    return ExportReport(output, checkpoint, output.stat().st_size, report)


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
    graph.add_argument("--size", metavar="HxW", help="fixed canvas; default: dynamic")
    graph.add_argument("--batch", type=int, help="fixed batch; default: dynamic")
    graph.add_argument("--opset", type=int, help="ONNX operator set, default 18")
    says = parser.add_argument_group("what the weights cannot tell")
    says.add_argument("--short-side", type=int, metavar="PX")
    says.add_argument("--long-side", type=int, metavar="PX")
    says.add_argument("--score-threshold", type=float, metavar="P")
    says.add_argument("--nms-iou", type=float, metavar="IOU")
    says.add_argument("--detections", type=int, metavar="D", help="per image")
    says.add_argument("--candidates", type=int, metavar="K", help="boxes that reach the last NMS")
    says.add_argument("--norm-eps", type=float, metavar="EPS", help="of BatchNorm")
    says.add_argument("--names", help="class names: a file with one a line, or a,b,c")
    says.add_argument("--spec", type=Path, help="JSON file with any fields of the spec")
    check = parser.add_argument_group("check")
    check.add_argument("--check-image", type=Path, default=SAMPLE_PHOTO, help="photo to check on")
    check.add_argument("--no-check", action="store_true", help="do not run the file")
    return parser


def _export(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    output = args.output or args.weights.with_suffix(".onnx")
    if output.resolve() == args.weights.resolve():
        raise UsageError(f"-o {output}: would overwrite the weights; name another file")
    steps = Steps(3 if args.no_check else 4)
    report = export_onnx(
        args.weights,
        output,
        _options(args),
        _shape(args.size, args.batch),
        _opset(args.opset),
        None if args.no_check else args.check_image,
        steps,
    )
    steps.end()
    _print_report(report, args)
    return DONE


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
    path = Path(text)
    if "," not in text and not path.is_file():
        raise UsageError(f"--names {text}: no such file; expected a file, or names like cat,dog")
    lines = text.split(",") if not path.is_file() else path.read_text("utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _shape(size: str | None, batch: int | None) -> GraphShape:
    from export.tracing import GraphShape

    if size is None:
        return GraphShape(batch=batch)
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(f"--size: expected HEIGHTxWIDTH like 800x1344, got '{size}'")
    return GraphShape(batch, int(match[1]), int(match[2]))


def _opset(opset: int | None) -> int | None:
    from export.tracing import OPSETS

    if opset is not None and opset not in OPSETS:
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
    photo = shlex.quote(str(args.check_image))
    print(f"next: maskport predict {shlex.quote(str(report.path))} {photo} -o out")


if __name__ == "__main__":
    sys.exit(main())
