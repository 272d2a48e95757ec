"""The result of an export, and what the command prints of it."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from export.cli_spec_options import print_reading
from export.targets import TARGETS
from runtime.cli.next_command import next_step

if TYPE_CHECKING:
    from export.parity.check import CheckReport
    from export.passes.half_precision import HalfReport
    from export.precision.check import HalfCheckReport
    from model.live.source import AnyModel
    from model.native.options import NativeOptions
    from model.spec import ModelSpec

_ON_A_CPU = {
    "fp16": "computes this file in float32; a GPU uses FP16",
    "bf16": "cannot run this file: it has no BF16 convolution and no RoiAlign of opset 22",
}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """The written file, its checkpoint, and the result of the check (None: not checked).

    `rounds` has the limits of the `native` lowering, None for `standard`. In half precision,
    `check` belongs to the float32 graph that the file was converted from; `half` and `half_check`
    are None for float32.
    """

    path: Path
    checkpoint: AnyModel
    size_bytes: int
    check: CheckReport | None
    rounds: NativeOptions | None = None
    half: HalfReport | None = None
    half_check: HalfCheckReport | None = None


def print_report(report: ExportReport, args: argparse.Namespace) -> None:
    """Print what was exported, what was checked and what to run next."""
    spec = report.checkpoint.spec
    sizes = "dynamic canvas" if args.size is None else f"canvas {args.size}"
    default = "batch 1" if TARGETS[args.target].engine else "dynamic batch"
    batch = default if args.batch is None else f"batch {args.batch}"
    print(
        f"{report.path} · {report.size_bytes / 1e6:.0f} MB · {spec.architecture} · "
        f"{spec.num_foreground} classes · {sizes}, {batch}"
    )
    print_reading(report.checkpoint)
    if report.rounds is not None:
        print(_rounds(report.rounds, spec))
    if report.check is not None:
        print(f"checked: {report.check}")
    if report.half is not None:
        print(report.half)
    if report.half_check is not None:
        print(f"checked under emulation: {report.half_check}")
    if report.half is not None:
        print(f"note: ONNX Runtime on a CPU {_ON_A_CPU[args.precision]}")
    print(_what_next(report, args))


def _what_next(report: ExportReport, args: argparse.Namespace) -> str:
    if args.precision != "bf16":
        photo = os.path.relpath(args.check_image)
        return next_step("predict", report.path, photo, "-o", "out")
    # ONNX Runtime has no BF16 convolution on a CPU.
    return next_step("doctor" if TARGETS[args.target].engine else "inspect", report.path)


def _rounds(options: NativeOptions, spec: ModelSpec) -> str:
    from export.lowering.native import rounds_cost

    cost = rounds_cost(spec, options)
    return (
        f"NMS iterations: {options.proposal_rounds} for proposals, {options.detection_rounds} for "
        f"detections (--nms-rounds); {cost.bytes_read / 1e6:.0f} MB read and "
        f"{cost.multiply_adds / 1e9:.2f} G multiply-adds per photo"
    )
