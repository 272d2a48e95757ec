"""The runtime around the network, on the CPU with 1080p JPEG files: streaming, and host stages.

For each model: how near `stream` comes to its bound on two cores, one for the network and one for
the rest (`bench/streaming.py` says how), and what preprocessing and results cost with 20
detections, against torchvision's transform, paste, threshold and pycocotools in turn
(`bench/host_stages.py`).
Exit status 1 when a target is missed. Run it on a machine that does nothing else.
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
STREAM_SHARE, HOST_MS, HOST_RATIO = 0.95, 15.0, 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint at a size, and where its photos come from."""

    name: str
    weights: Path
    options: SpecOptions
    sources: Sequence[Path]


@dataclass(frozen=True, slots=True)
class Row:
    """One case, measured."""

    case: str
    streaming: Streaming
    host: HostStages

    @property
    def missed(self) -> list[str]:
        """Which targets are not met."""
        host = self.host
        checks = {
            f"stream ≥ {STREAM_SHARE:.0%} of the bound": self.streaming.ratio >= STREAM_SHARE,
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
    parser.add_argument("--repeats", type=int, default=5, help="turns of the stream (5)")
    parser.add_argument("--host-repeats", type=int, default=5, help="host calls per photo (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="least length of a pass (10)")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="of the stream")
    parser.add_argument("--only", help="cases with this in their name")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _cases() -> list[Case]:
    names = tuple((DEMO / "shapes.names").read_text("utf-8").split())
    small = SpecOptions(short_side=320, long_side=533, names=names)
    found = [Case("demo 320/533", DEMO / "shapes.pth", small, [SAMPLE_PHOTO])]
    if not photos.has_data():
        print("no photos and weights here (MASKPORT_DATA): the demo model only")
        return found
    weights, sources = photos.fitted_weights(), photos.fitted_photos()
    for short, long in ((320, 533), (800, 1333)):
        options = SpecOptions(short_side=short, long_side=long)
        found.append(Case(f"R50 {short}/{long}", weights, options, sources))
    return found


def _measure(case: Case, folder: Path, args: argparse.Namespace, steps: Steps) -> Row:
    place = folder / case.name.replace("/", "-").replace(" ", "-")
    place.mkdir()
    steps.begin(f"{case.name}: photos and export")
    files = write_full_hd(case.sources, args.photos, place)
    model = place / "model.onnx"
    export_onnx(case.weights, model, case.options, check_photo=None)
    steps.begin(f"{case.name}: stream")
    streaming = _streaming(model, place, args)
    steps.begin(f"{case.name}: host stages")
    checkpoint = load(case.weights, case.options)
    eager = eager_model(checkpoint.spec, checkpoint.original)
    host = compare_host_stages(eager, open_session(model, threads=1), files, args.host_repeats)
    return Row(case.name, streaming, host)


def _streaming(model: Path, folder: Path, args: argparse.Namespace) -> Streaming:
    """In a process without PyTorch, whose objects and threads would be in the way."""
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
        ("model", "photos a pass", "bare session /s", "CPU s a photo", "cores / CPU s", "bound /s",
         "one by one /s", "stream /s", "of the bound"),
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
            f"network and {args.workers} beside it, medians of {args.repeats} turns. The bound is "
            "the smaller of the bare session and cores / CPU seconds; what the stream reaches of "
            "it is compared within each turn, the least and the most in brackets.",
            streams,
            f"Milliseconds per photo with {DETECTIONS} detections, from pixels to run lengths, the "
            "network left out; one thread, in turn, medians. torchvision: transform, paste, "
            "threshold, pycocotools' `encode`, from a float image. Decoding is in neither.",
            hosts,
            f"Targets: stream ≥ {STREAM_SHARE:.0%} of the bound, pre + post ≤ {HOST_MS:g} ms and "
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


def _stream_cells(case: str, found: Streaming) -> list[str]:
    return [
        case,
        str(found.photos),
        f"{found.bare_per_s:.3f}",
        f"{found.cpu_s_per_photo:.3f}",
        f"{found.cores_per_s:.3f}",
        f"{found.bound_per_s:.3f}",
        f"{found.serial_per_s:.3f}",
        f"{found.stream_per_s:.3f}",
        f"{found.ratio:.1%} ({min(found.shares):.0%} to {max(found.shares):.0%})",
    ]


def _host_cells(case: str, found: HostStages) -> list[str]:
    return [
        case,
        f"{found.ours_ms:.1f}",
        f"{found.preprocess_ms:.1f}",
        f"{found.results_ms:.1f}",
        f"{found.torchvision_ms:.0f}",
        f"{found.transform_ms:.1f}",
        f"{found.ratio:.0f}×",
        f"{found.decode_ms:.1f}",
        f"{found.identical} of {found.masks}",
    ]


if __name__ == "__main__":
    sys.exit(main())
