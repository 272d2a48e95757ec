"""Time from a JPEG file to run lengths: our FP32 and INT8 files against torchvision.

R50-FPN at 800 x 1088 with the fitted weights and about 15 detections; decoding, preprocessing and
paste are included. Equal threads, calls in turn, medians. INT8 kernels need VNNI. Exit status 1
when a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import photos, results
from bench.end_to_end import FEW, LONG_SIDE, PAUSE_S, SHORT_SIDE, Eager, median_ms, threshold_for
from bench.precision import calibration_photos
from calib.calibration.work import Kernels
from calib.options import QuantizeOptions
from calib.quantize import quantize
from export.onnx import export_onnx
from model.checkpoint import SpecOptions, load
from runtime.cli.console import Bar
from runtime.predictor import Predictor
from runtime.sources.photos import decode

# Speedup of the INT8 file with all layers in 8 bits over torchvision and over our FP32 file.
TARGETS = {"torchvision": 3.5, "FP32": 2.2}
MAX_SIZE_FRACTION = 0.30
Call = Callable[[], int]


class Ours:
    """A file in the `Predictor`, with the times of its stages."""

    def __init__(self, path: Path, photo: Path, threads: int) -> None:
        self._predictor = Predictor.open(path, threads=threads)
        self._photo = photo
        self.stages: list[dict[str, float]] = []

    def __call__(self) -> int:
        """Detect and encode; return the number of masks."""
        before = dict(self._predictor.times.seconds)
        detections = self._predictor.predict(self._photo)
        started = time.perf_counter()
        count = len(detections.rle())
        after = self._predictor.times.seconds
        stages = {stage: after[stage] - before[stage] for stage in after}
        self.stages.append({**stages, "run lengths": time.perf_counter() - started})
        return count


def main() -> int:
    """Export, quantize, measure; status 1 when a target is missed."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    pixels = decode(args.photo)
    checkpoint = load(
        photos.fitted_weights(), SpecOptions(short_side=SHORT_SIDE, long_side=LONG_SIDE)
    )
    threshold = threshold_for(FEW, checkpoint, pixels)
    model = photos.torchvision_model(checkpoint)
    model.roi_heads.score_thresh = threshold
    eager = Eager(model)
    with tempfile.TemporaryDirectory() as folder:
        files, kernels = _files(Path(folder), threshold, args.calibration)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        ours = {name: Ours(path, args.photo, args.threads) for name, path in files.items()}
        calls: dict[str, Call] = {"torchvision": lambda: len(eager(decode(args.photo))), **ours}
        masks = {name: call() for name, call in calls.items()}
        for one in ours.values():
            one.stages.clear()
        seconds = _interleaved(calls, args.repeats)
    ms = {name: median_ms(times) for name, times in seconds.items()}
    stages = {
        name: {s: median_ms([run[s] for run in one.stages]) for s in one.stages[0]}
        for name, one in ours.items()
    }
    _report(ms, stages, masks, sizes, kernels, args)
    fast = ms["INT8 fast"]
    met = all(ms[name] / fast >= ratio for name, ratio in TARGETS.items())
    return 0 if met and sizes["INT8 fast"] <= MAX_SIZE_FRACTION * sizes["FP32"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--calibration", type=int, default=8, help="photos; speed does not depend on them"
    )
    default = photos.data_folder() / "coco" / "train2017" / "000000000009.jpg"
    parser.add_argument("--photo", type=Path, default=default, help="640 x 480 gives 800 x 1088")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _files(
    folder: Path, threshold: float, calibration: int
) -> tuple[dict[str, Path], dict[str, Kernels]]:
    """The FP32 file and one INT8 file per preset, with the kernels of those."""
    source = folder / "fp32.onnx"
    sizes = SpecOptions(short_side=SHORT_SIDE, long_side=LONG_SIDE, score_threshold=threshold)
    export_onnx(photos.fitted_weights(), source, sizes, check_photo=None)
    files, kernels = {"FP32": source}, {}
    for preset in ("fast", "balanced", "accurate"):
        name = f"INT8 {preset}"
        options = QuantizeOptions(preset=preset, rounding="nearest", table=folder / "table.json")
        report = quantize(
            source, calibration_photos()[:calibration], folder / f"{preset}.onnx", options
        )
        assert report.kernels is not None
        files[name], kernels[name] = report.path, report.kernels
    return files, kernels


def _interleaved(calls: dict[str, Call], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    bar = Bar(repeats * len(calls), "calls")
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
            bar.advance()
    return seconds


def _report(
    ms: dict[str, float],
    stages: dict[str, dict[str, float]],
    masks: dict[str, int],
    sizes: dict[str, int],
    kernels: dict[str, Kernels],
    args: argparse.Namespace,
) -> None:
    names: Sequence[str] = list(ms)
    rows = [
        [
            name,
            str(masks[name]),
            f"{ms[name]:.0f}",
            f"{ms['torchvision'] / ms[name]:.2f}×",
            f"{ms['FP32'] / ms[name]:.2f}×",
            f"{sizes[name] / 1e6:.0f}" if name in sizes else "",
            f"{sizes[name] / sizes['FP32']:.0%}" if name in sizes else "",
            str(kernels.get(name, "")),
        ]
        for name in names
    ]
    columns = ("", "masks", "ms", "torchvision / this", "FP32 / this", "MB", "of FP32", "kernels")
    parts = results.table(
        ("ms", *next(iter(stages.values()))),
        [(name, *(f"{value:.1f}" for value in one.values())) for name, one in stages.items()],
    )
    head = (
        f"{args.threads} threads, {args.repeats} calls each, medians; targets for INT8 fast: "
        f"≥ {TARGETS['torchvision']}× torchvision, ≥ {TARGETS['FP32']}× our FP32 file, at most "
        f"{MAX_SIZE_FRACTION:.0%} of its size. Without VNNI in the machine class above, integer "
        "kernels gain little or nothing."
    )
    data = {"rows": [dict(zip(columns, row, strict=True)) for row in rows], "stages_ms": stages}
    body = "\n\n".join([head, results.table(columns, rows), parts])
    results.write("A JPEG file to masks in INT8", body, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
