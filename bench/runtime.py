"""The runtime around the network, on the CPU with 1080p JPEG files: streaming and host stages.

For each model: the throughput of `stream` on two cores as a fraction of its upper bound, with one
thread for the network and one for the other stages (`bench/streaming.py`), and the time of
preprocessing and postprocessing with 20 detections, against torchvision's transform, paste,
threshold and pycocotools, in turn (`bench/host_stages.py`). Exit status 1 when a target is missed.
Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnxruntime
import torch

from bench import photos, results
from bench.full_hd import write_full_hd
from bench.host_stages import DETECTIONS, HostStages, compare_host_stages
from bench.streaming import Streaming
from export.onnx import SAMPLE_PHOTO, export_onnx
from model.checkpoint import SpecOptions, load
from model.families.torchvision.reference import eager_model
from runtime.cli.console import Steps
from runtime.sessions.open import open_session

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "examples" / "demo"
STREAM_FRACTION, HOST_MS, HOST_RATIO = 0.95, 15.0, 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint at a size, and the photos that its input is made from."""

    name: str
    weights: Path
    options: SpecOptions
    sources: Sequence[Path]


@dataclass(frozen=True, slots=True)
class Row:
    """The measurements of one case."""

    case: str
    streaming: Streaming
    host: HostStages

    @property
    def missed(self) -> list[str]:
        """The targets that are not met."""
        host = self.host
        checks = {
            f"stream ≥ {STREAM_FRACTION:.0%} of the bound": self.streaming.ratio >= STREAM_FRACTION,
            f"pre + post ≤ {HOST_MS:g} ms": host.ours_ms <= HOST_MS,
            f"≥ {HOST_RATIO:g}× less than torchvision": host.ratio >= HOST_RATIO,
            "run lengths identical": host.identical == host.masks,
        }
        return [name for name, met in checks.items() if not met]


def main() -> int:
    """Measure all cases; status 1 when one misses a target."""
    args = _arguments()
    cases = [case for case in _cases() if not args.only or args.only in case.name]
    if not cases:
        sys.exit(f"error: --only: no case has '{args.only}' in its name")
    steps = Steps(3 * len(cases))
    with tempfile.TemporaryDirectory() as folder:
        rows = [_measure(case, Path(folder), args, steps) for case in cases]
    steps.end()
    _report(rows, args)
    return 1 if any(row.missed for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=12, help="1080p files per model (12)")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each kind (5)")
    parser.add_argument("--host-repeats", type=int, default=5, help="host calls per photo (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="minimum length of a pass (10)")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="of the stream")
    parser.add_argument("--only", help="cases with this in their name")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _cases() -> list[Case]:
    names = tuple((DEMO / "shapes.names").read_text("utf-8").split())
    small = SpecOptions(short_side=320, long_side=533, names=names)
    cases = [Case("demo 320/533", DEMO / "shapes.pth", small, [SAMPLE_PHOTO])]
    if not photos.has_data():
        print("no photos and weights (MASKPORT_DATA): the demo model only")
        return cases
    weights, sources = photos.fitted_weights(), photos.fitted_photos()
    for short, long in ((320, 533), (800, 1333)):
        options = SpecOptions(short_side=short, long_side=long)
        cases.append(Case(f"R50 {short}/{long}", weights, options, sources))
    return cases


def _measure(case: Case, folder: Path, args: argparse.Namespace, steps: Steps) -> Row:
    case_folder = folder / case.name.replace("/", "-").replace(" ", "-")
    case_folder.mkdir()
    steps.begin(f"{case.name}: photos and export")
    files = write_full_hd(case.sources, args.photos, case_folder)
    model = case_folder / "model.onnx"
    export_onnx(case.weights, model, case.options, check_photo=None)
    steps.begin(f"{case.name}: stream")
    streaming = _streaming(model, case_folder, args)
    steps.begin(f"{case.name}: host stages")
    checkpoint = load(case.weights, case.options)
    eager = eager_model(checkpoint.spec, checkpoint.original)
    host = compare_host_stages(eager, open_session(model, threads=1), files, args.host_repeats)
    return Row(case.name, streaming, host)


def _streaming(model: Path, folder: Path, args: argparse.Namespace) -> Streaming:
    """In a process without PyTorch, whose objects and threads would disturb the measurement."""
    options = {
        "--repeats": args.repeats,
        "--seconds": args.seconds,
        "--cores": args.cores,
        "--workers": args.workers,
    }
    flat = [str(part) for pair in options.items() for part in pair]
    script = Path(__file__).with_name("streaming.py")
    done = subprocess.run(
        [sys.executable, str(script), str(model), str(folder), *flat],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"error: {script.name} failed with status {done.returncode}")
    return Streaming(**json.loads(done.stdout))


def _report(rows: Sequence[Row], args: argparse.Namespace) -> None:
    streams = results.table(
        ("model", "photos per pass", "bare session /s", "CPU s per photo", "cores / CPU s",
         "bound /s", "one by one /s", "stream /s", "of the bound"),
        [_stream_cells(row.case, row.streaming) for row in rows],
    )  # fmt: skip
    hosts = results.table(
        ("model", "pre + post ms", "pre", "post", "torchvision ms", "transform", "ratio",
         "decode ms", "identical masks"),
        [_host_cells(row.case, row.host) for row in rows],
    )  # fmt: skip
    missed = [f"- {row.case}: MISSED {', '.join(row.missed)}" for row in rows if row.missed]
    body = "\n\n".join(
        [
            f"1920 x 1080 JPEG files. Photos per second with {args.cores} cores, one thread of the "
            f"network and {args.workers} for other stages, medians of {args.repeats} passes. The "
            "bound is the smaller of the bare session and cores / CPU seconds; the stream's "
            "fraction of it is of each pass, with the smallest and largest in parentheses.",
            streams,
            f"Milliseconds per photo with {DETECTIONS} detections, from pixels to run lengths, "
            "without the network; one thread, in turn, medians. torchvision: transform, paste, "
            "threshold, pycocotools' `encode`, from a float image. Neither includes decoding.",
            hosts,
            f"Targets: stream ≥ {STREAM_FRACTION:.0%} of the bound, pre + post ≤ {HOST_MS:g} ms, "
            f"≥ {HOST_RATIO:g}× less than torchvision: {'MISSED' if missed else 'met'}.",
            *(["\n".join(missed)] if missed else []),
        ]
    )
    data: dict[str, Any] = {
        "photos": args.photos,
        "repeats": args.repeats,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "rows": [_data(row) for row in rows],
    }
    results.write("The runtime around the network", body, data, args.json, args.markdown)


def _data(row: Row) -> dict[str, Any]:
    return {
        "case": row.case,
        "streaming": {
            **asdict(row.streaming),
            "bound_per_s": row.streaming.bound_per_s,
            "ratio": row.streaming.ratio,
        },
        "host": {**asdict(row.host), "ratio": row.host.ratio},
        "missed": row.missed,
    }


def _stream_cells(case: str, streaming: Streaming) -> list[str]:
    return [
        case,
        str(streaming.photos),
        f"{streaming.bare_per_s:.3f}",
        f"{streaming.cpu_s_per_photo:.3f}",
        f"{streaming.cores_per_s:.3f}",
        f"{streaming.bound_per_s:.3f}",
        f"{streaming.serial_per_s:.3f}",
        f"{streaming.stream_per_s:.3f}",
        f"{streaming.ratio:.1%} ({min(streaming.fractions):.0%} to {max(streaming.fractions):.0%})",
    ]


def _host_cells(case: str, host: HostStages) -> list[str]:
    return [
        case,
        f"{host.ours_ms:.1f}",
        f"{host.preprocess_ms:.1f}",
        f"{host.results_ms:.1f}",
        f"{host.torchvision_ms:.0f}",
        f"{host.transform_ms:.1f}",
        f"{host.ratio:.0f}×",
        f"{host.decode_ms:.1f}",
        f"{host.identical} of {host.masks}",
    ]


if __name__ == "__main__":
    sys.exit(main())
