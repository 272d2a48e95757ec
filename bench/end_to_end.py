"""Time from a photo in memory to run lengths: ours, torchvision, torchvision's own ONNX export.

R50-FPN at 800 x 1088 with the fitted weights; preprocessing, paste and run lengths are included.
Equal threads, calls in turn, medians. Exit status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnxruntime
import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from bench import photos, results
from export.onnx import export_onnx
from model.checkpoint import Checkpoint, SpecOptions, load
from runtime.cli.console import Bar
from runtime.predictor import Predictor
from runtime.sources.photos import decode

SHORT_SIDE, LONG_SIDE = 800, 1333
FEW = 15
LEGACY_OPSET = 17
# Thread pools spin for a while after a call.
PAUSE_S = 0.3
# How many times faster than torchvision's eager model and than its own ONNX file.
TARGETS = {"about 100": (1.5, 1.2), "about 15": (1.5, 1.0)}

UInt8 = npt.NDArray[np.uint8]
Texts = list[str]

HOW = (
    "Commands, on the same uint8 photo in memory:",
    "- ours: `python -m export.onnx weights.pth -o model.onnx --score-threshold T`, then "
    "`Predictor.open('model.onnx', threads=N).predict(photo).rle()`",
    "- eager: `maskrcnn_resnet50_fpn` in `torch.inference_mode()`, `torch.set_num_threads(N)`: "
    "`model([photo / 255])[0]`, then `masks > 0.5` and pycocotools' `encode` of each",
    "- legacy: `torch.onnx.export(model, ([photo / 255],), dynamo=False, opset_version="
    f"{LEGACY_OPSET})`, the file in ONNX Runtime with N threads, then `masks > 0.5` and `encode`",
)


class Detector(Protocol):
    """Detects on a photo and encodes its masks as run lengths."""

    def __call__(self, photo: UInt8) -> Texts:
        """Uint8 [h, w, 3] RGB to COCO's compressed run lengths, best score first."""


@dataclass(frozen=True, slots=True)
class Row:
    """One case: median milliseconds of each detector."""

    case: str
    score_threshold: float
    detections: dict[str, int]
    same_masks: dict[str, int]
    ms: dict[str, float]
    all_ms: dict[str, list[float]]
    stages_ms: dict[str, float]

    def ratio(self, other: str) -> float:
        """Speedup of ours over the other."""
        return self.ms[other] / self.ms["ours"]

    @property
    def passed(self) -> bool:
        """Whether both targets are met."""
        eager, legacy = TARGETS[self.case]
        return self.ratio("eager") >= eager and self.ratio("legacy") >= legacy


class Ours:
    """The exported file in the `Predictor`, with the times of its stages."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, threads: int) -> None:
        path = folder / "ours.onnx"
        options = _options(checkpoint.spec.box.score_threshold)
        export_onnx(checkpoint.path, path, options, check_photo=None)
        self._predictor = Predictor.open(path, threads=threads)
        self.stages: list[dict[str, float]] = []

    def __call__(self, photo: UInt8) -> Texts:
        """See `Detector`."""
        before = dict(self._predictor.times.seconds)
        detections = self._predictor.predict(photo)
        started = time.perf_counter()
        texts = [rle["counts"] for rle in detections.rle()]
        after = {**self._predictor.times.seconds}
        stages = {stage: after[stage] - before[stage] for stage in after}
        stages["paste and run lengths"] = time.perf_counter() - started
        self.stages.append(stages)
        return texts


class Eager:
    """torchvision's eager model."""

    def __init__(self, model: GeneralizedRCNN) -> None:
        self._model = model

    def __call__(self, photo: UInt8) -> Texts:
        """See `Detector`."""
        with torch.inference_mode():
            result = self._model([_tensor(photo)])[0]
            return _encode((result["masks"][:, 0] > 0.5).numpy())


class Legacy:
    """torchvision's own ONNX export, in ONNX Runtime."""

    def __init__(self, model: GeneralizedRCNN, photo: UInt8, folder: Path, threads: int) -> None:
        path = folder / "legacy.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                ([_tensor(photo)],),
                str(path),
                dynamo=False,
                opset_version=LEGACY_OPSET,
                input_names=["photo"],
                output_names=["boxes", "labels", "scores", "masks"],
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, photo: UInt8) -> Texts:
        """See `Detector`."""
        (masks,) = self._session.run(["masks"], {"photo": _tensor(photo).numpy()})
        return _encode(masks[:, 0] > 0.5)


def _tensor(photo: UInt8) -> torch.Tensor:
    """Float32 [3, h, w] in 0..1, as `torchvision.transforms.functional.to_tensor`."""
    return torch.tensor(photo).permute(2, 0, 1).contiguous().float() / 255


def _encode(masks: npt.NDArray[np.bool_]) -> Texts:
    from pycocotools import mask as coco_mask

    encoded = [coco_mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in masks]
    return [rle["counts"].decode("ascii") for rle in encoded]


def _options(score_threshold: float | None) -> SpecOptions:
    return SpecOptions(short_side=SHORT_SIDE, long_side=LONG_SIDE, score_threshold=score_threshold)


def main() -> int:
    """Run both cases; status 1 when one misses a target."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    pixels = decode(args.photo)
    checkpoint = load(photos.fitted_weights(), _options(None))
    thresholds = {
        "about 100": checkpoint.spec.box.score_threshold,
        "about 15": threshold_for(FEW, checkpoint, pixels),
    }
    rows = [
        _measure(case, threshold, pixels, args.threads, args.repeats)
        for case, threshold in thresholds.items()
    ]
    _report(rows, args)
    return 0 if all(row.passed for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    default = photos.data_folder() / "coco" / "train2017" / "000000000009.jpg"
    parser.add_argument("--photo", type=Path, default=default, help="640 x 480 gives 800 x 1088")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def threshold_for(count: int, checkpoint: Checkpoint, photo: UInt8) -> float:
    """The score threshold that leaves `count` detections; the same for all detectors."""
    with torch.inference_mode():
        scores = photos.torchvision_model(checkpoint)([_tensor(photo)])[0]["scores"]
    return round(float(scores[count - 1] + scores[count]) / 2, 6)


def _measure(case: str, threshold: float, photo: UInt8, threads: int, repeats: int) -> Row:
    checkpoint = load(photos.fitted_weights(), _options(threshold))
    model = photos.torchvision_model(checkpoint)
    model.roi_heads.score_thresh = threshold
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = Ours(checkpoint, folder, threads)
        detectors: dict[str, Detector] = {
            "ours": ours,
            "eager": Eager(model),
            "legacy": Legacy(model, photo, folder, threads),
        }
        texts = {name: detector(photo) for name, detector in detectors.items()}
        ours.stages.clear()
        seconds = _interleaved(detectors, photo, repeats)
    return Row(
        case,
        threshold,
        {name: len(masks) for name, masks in texts.items()},
        {name: len(set(masks) & set(texts["eager"])) for name, masks in texts.items()},
        {name: median_ms(times) for name, times in seconds.items()},
        {name: [round(1e3 * s, 1) for s in times] for name, times in seconds.items()},
        {stage: median_ms([s[stage] for s in ours.stages]) for stage in ours.stages[0]},
    )


def _interleaved(
    detectors: Mapping[str, Detector], photo: UInt8, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every call; in turn, so that all run under the same conditions."""
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    bar = Bar(repeats * len(detectors), "calls")
    for _ in range(repeats):
        for name, detector in detectors.items():
            time.sleep(PAUSE_S)
            seconds[name].append(_timed(partial(detector, photo)))
            bar.advance()
    return seconds


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def median_ms(seconds: Sequence[float]) -> float:
    """Median of several calls in milliseconds."""
    return round(1e3 * statistics.median(seconds), 2)


def _report(rows: Sequence[Row], args: argparse.Namespace) -> None:
    columns = (
        "case", "score threshold", "detections", "masks equal to eager's", "ours ms", "eager ms",
        "legacy ms", "eager / ours", "legacy / ours", "targets", "verdict",
    )  # fmt: skip
    stages = results.table(
        ("ours, ms", *rows[0].stages_ms),
        [(row.case, *(f"{ms:.1f}" for ms in row.stages_ms.values())) for row in rows],
    )
    head = f"{args.threads} threads, {args.repeats} calls each, medians."
    body = "\n\n".join([head, results.table(columns, [_cells(r) for r in rows]), stages])
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    data: dict[str, Any] = {
        "threads": args.threads,
        "repeats": args.repeats,
        **versions,
        "rows": [{**asdict(row), "passed": row.passed} for row in rows],
    }
    body += "\n\n" + "\n".join(HOW)
    results.write("End to end", body, data, args.json, args.markdown)


def _cells(row: Row) -> list[str]:
    eager, legacy = TARGETS[row.case]
    return [
        row.case,
        f"{row.score_threshold:.4f}",
        " / ".join(str(row.detections[name]) for name in ("ours", "eager", "legacy")),
        " / ".join(str(row.same_masks[name]) for name in ("ours", "eager", "legacy")),
        *(f"{row.ms[name]:.0f}" for name in ("ours", "eager", "legacy")),
        f"{row.ratio('eager'):.2f}×",
        f"{row.ratio('legacy'):.2f}×",
        f"≥ {eager}, ≥ {legacy}",
        "met" if row.passed else "MISSED",
    ]


if __name__ == "__main__":
    sys.exit(main())
