"""Time and parity of every way to run Mask R-CNN R50-FPN on this GPU, and the GPU's lower bound.

Rows: torchvision's eager model (TF32 off and on), our network in PyTorch (eager, static, compiled,
as a CUDA graph, and that in FP16), ONNX Runtime's CUDA provider, TensorRT-RTX and TensorRT engines
with and without CUDA graphs. A library that is not installed or does not support this GPU is a row
with the reason. All at one canvas, interleaved, medians; parity is with torchvision eager, TF32
off. `--device cpu --size 320x448 --repeats 2` tests the program without a GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import gpu_floor, photos, results
from export.onnx import SAMPLE_PHOTO
from model.checkpoint import Checkpoint, SpecOptions, load
from model.errors import MaskportError
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.detections import Detections
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.preprocessing.canvas import Canvas, to_canvas
from runtime.sessions.session import Outputs, Session
from runtime.sessions.torch import Mode, TorchSession
from runtime.sources.photos import decode

Runner = Callable[[Canvas], Outputs]


@dataclass(slots=True)
class Row:
    """One way to run, its times in ms per call, and its differences from the reference."""

    name: str
    precision: str
    run: Runner | None
    why_not: str = ""
    tf32: bool = False
    ms: dict[int, list[float]] = field(default_factory=dict)
    parity: str = ""
    is_equal: bool = True


def main() -> int:
    """Measure every row at every batch size; status 1 when the results of an FP32 row differ."""
    args = _arguments()
    hw = tuple(int(side) for side in args.size.split("x"))
    canvas_hw = (hw[0], hw[1])
    batches = [int(b) for b in args.batch.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, model = _checkpoint(canvas_hw, Path(folder))
        rows = _rows(checkpoint, model, args.device, canvas_hw, max(batches), Path(folder))
        pictures = _pictures(max(batches))
        for batch in batches:
            canvas = to_canvas(pictures[:batch], checkpoint.spec.preprocess, canvas_hw, batch)
            _measure(rows, canvas, batch, args.repeats)
            if batch == batches[0]:
                _compare(rows, canvas, pictures[:batch], checkpoint)
        stages = gpu_floor.stage_rows(checkpoint, rows[0].run, pictures[0], canvas_hw, args.repeats)
    _report(rows, stages, batches, args)
    return 0 if all(row.is_equal for row in rows if row.precision == "FP32") else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="800x1344")
    parser.add_argument("--batch", default="1,4,8")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _checkpoint(hw: tuple[int, int], folder: Path) -> tuple[Checkpoint, GeneralizedRCNN]:
    """The fitted weights if present, else random ones with trained-like outputs."""
    short, long = min(hw), max(hw)
    weights = photos.fitted_weights() if photos.has_data() else folder / "random.pth"
    if not weights.exists():
        from torchvision.models.detection import maskrcnn_resnet50_fpn

        from tests.lively import enliven

        torch.manual_seed(0)
        random = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        torch.save(enliven(random, 0).state_dict(), weights)
    checkpoint = load(weights, SpecOptions(short_side=short, long_side=long))
    return checkpoint, photos.torchvision_model(checkpoint)


def _pictures(count: int) -> list[npt.NDArray[np.uint8]]:
    if photos.has_data():
        wide = [p for p in map(decode, photos.fitted_photos()) if p.shape[1] >= p.shape[0]]
        return [wide[i % len(wide)] for i in range(count)]
    sample = decode(SAMPLE_PHOTO)
    return [np.roll(sample, 40 * i, axis=1) for i in range(count)]


def _rows(
    checkpoint: Checkpoint,
    model: GeneralizedRCNN,
    device: str,
    hw: tuple[int, int],
    largest: int,
    folder: Path,
) -> list[Row]:
    model = model.to(device)
    rows = [
        Row("torchvision eager", "FP32", lambda canvas: _torchvision(model, canvas, device)),
        Row("torchvision eager", "TF32", lambda canvas: _torchvision(model, canvas, device)),
    ]
    rows[1].tf32 = True
    modes: list[tuple[Mode, bool]] = [("eager", False), ("static", False), ("compiled", False)]
    if device != "cpu":
        modes += [("cuda-graph", False), ("compiled", True), ("cuda-graph", True)]
    for mode, half in modes:
        name, precision = f"PyTorch, our network, {mode}", "FP16" if half else "FP32"
        opener = partial(TorchSession, checkpoint, device, mode, half)
        rows.append(_opened(name, precision, opener))
    try:
        from bench import gpu_engines
    except ImportError as error:
        why = f"{error}; pip install 'maskport[export]'"
        return [*rows, Row("engines, ONNX Runtime", "FP32", None, why)]
    for name, make in gpu_engines.openers(checkpoint, device, hw, largest, folder):
        rows.append(_opened(name, "FP32", make))
    return rows


def _opened(name: str, precision: str, opener: Callable[[], Session]) -> Row:
    try:
        session = opener()
    except (MaskportError, RuntimeError, ImportError) as error:
        return Row(name, precision, None, " ".join(str(error).split())[:160])
    return Row(
        name,
        precision,
        lambda canvas: session.run({"images": canvas.images, "image_hw": canvas.image_hw}),
    )


def _torchvision(model: GeneralizedRCNN, canvas: Canvas, device: str) -> Outputs:
    """Run torchvision's forward on the canvas; the outputs have our graph's names and shapes."""
    images = torch.from_numpy(canvas.images).to(device)
    sizes = [(int(h), int(w)) for h, w in canvas.image_hw]
    with torch.inference_mode():
        mean, std = (torch.tensor(v, device=device) for v in _mean_std(model))
        normalized = (images - mean[:, None, None]) / std[:, None, None]
        for row, (height, width) in enumerate(sizes):
            normalized[row, :, height:] = 0
            normalized[row, :, :, width:] = 0
        features = model.backbone(normalized)
        batch = ImageList(normalized, sizes)
        proposals, _ = model.rpn(batch, features)
        detections, _ = model.roi_heads(features, proposals, sizes)
    return _padded(detections)


def _mean_std(model: GeneralizedRCNN) -> tuple[list[float], list[float]]:
    return model.transform.image_mean, model.transform.image_std


def _padded(detections: list[dict[str, Tensor]]) -> Outputs:
    rows, count = 100, len(detections)
    outputs: Outputs = {
        "boxes": np.zeros((count, rows, 4), np.float32),
        "scores": np.zeros((count, rows), np.float32),
        "labels": np.zeros((count, rows), np.int32),
        "masks": np.zeros((count, rows, 28, 28), np.float32),
        "counts": np.array([len(each["scores"]) for each in detections], np.int32),
        "nms_open": np.zeros(count, np.int32),
        "candidates_cut": np.zeros(count, np.int32),
        "samples_cut": np.zeros(count, np.int32),
    }
    for index, each in enumerate(detections):
        for name in ("boxes", "scores", "labels", "masks"):
            value = each[name].cpu().numpy()
            outputs[name][index, : len(value)] = value[:, 0] if name == "masks" else value
    return outputs


def _measure(rows: list[Row], canvas: Canvas, batch: int, repeats: int) -> None:
    """One call of each row in turn, so that all run under the same conditions."""
    for repeat in range(repeats + 3):  # the first three choose kernels and record graphs
        for row in rows:
            if row.run is None:
                continue
            torch.backends.cuda.matmul.allow_tf32 = row.tf32
            torch.backends.cudnn.allow_tf32 = row.tf32
            started = time.perf_counter()
            try:
                row.run(canvas)
            except (MaskportError, RuntimeError) as error:
                row.run, row.why_not = None, " ".join(str(error).split())[:160]
                continue
            if repeat >= 3:
                row.ms.setdefault(batch, []).append(1e3 * (time.perf_counter() - started))


def _compare(
    rows: list[Row],
    canvas: Canvas,
    pictures: list[npt.NDArray[np.uint8]],
    checkpoint: Checkpoint,
) -> None:
    """Every row's detections of the first photo against the first row's."""

    def detections(row: Row) -> Detections:
        assert row.run is not None
        torch.backends.cuda.matmul.allow_tf32 = row.tf32
        torch.backends.cudnn.allow_tf32 = row.tf32
        height, width = (int(side) for side in canvas.image_hw[0])
        raw = raw_rows(row.run(canvas), 0)
        return from_raw(raw, checkpoint.spec, pictures[0].shape[:2], (height, width))

    reference = detections(rows[0])
    for row in rows:
        if row.run is None:
            continue
        verdict = check([compare(reference, detections(row), row.name)])
        # Decisions within rounding may differ in another library; they are not attributed here.
        row.is_equal = verdict.equal_detections >= 0.97 * verdict.detections
        row.parity = (
            f"{verdict.equal_detections} of {verdict.detections}, score "
            f"{verdict.worst_score_diff or 0:.1e}, box {verdict.worst_box_diff_px or 0:.4f} px"
        )


def _report(
    rows: list[Row], stages: list[list[str]], batches: list[int], args: argparse.Namespace
) -> None:
    columns = ["runtime", "precision"]
    for batch in batches:
        columns += [f"batch {batch}: p50 ms", "p99", "x torchvision"]
    columns.append("equal to torchvision eager (batch 1)")
    cells = [
        [row.name, row.precision, *_timings(row, rows[0], batches), row.parity] for row in rows
    ]
    body = "\n\n".join(
        [
            gpu_floor.describe(args.device),
            "Times are of whole calls, from host arrays to host arrays.",
            results.table(columns, cells),
            results.table(("stage of one photo", "p50 ms", "p99 ms"), stages),
            gpu_floor.floor(args.device, batches),
        ]
    )
    data: dict[str, Any] = {"rows": [dict(zip(columns, c, strict=True)) for c in cells]}
    results.write("On a GPU", body, {**data, "stages": stages}, args.json, args.markdown)


def _timings(row: Row, reference: Row, batches: list[int]) -> list[str]:
    if row.run is None:
        return [row.why_not, *[""] * (3 * len(batches) - 1)]
    cells = []
    for batch in batches:
        p50, p99 = np.percentile(row.ms[batch], (50, 99))
        ratio = float(np.median(reference.ms[batch])) / p50
        cells += [f"{p50:.2f}", f"{p99:.2f}", f"{ratio:.2f}"]
    return cells


if __name__ == "__main__":
    sys.exit(main())
