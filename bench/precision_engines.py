"""FP16, INT8 and INT8+FP16 engines, built on a CPU by TensorRT-RTX.

R50-FPN at 800 x 1344, the demo model, and detectron2's narrow C4 and keypoint models at a quarter
of that. INT8 is the preset `fast`, with all hidden layers; few calibration photos are enough to
compile. Exit status 1 when an engine does not compile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from bench.precision import calibration_photos
from calib.options import QuantizeOptions
from calib.quantize import quantize
from export.engine import build_engine
from export.onnx import export_onnx
from export.tracing import GraphShape
from model.checkpoint import SpecOptions
from model.errors import MaskportError

ARCHITECTURES = ("sm86", "sm89", "sm120")
PRECISIONS = ("fp16", "int8", "int8+fp16")


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint and the canvas that it is compiled for."""

    title: str
    weights: Path
    config: Path | None
    canvas: tuple[int, int]


def _models() -> dict[str, Model]:
    golden = photos.data_folder() / "golden" / "detectron2"
    demo = Path(__file__).resolve().parents[1] / "examples" / "demo" / "shapes.pth"
    c4, keypoint = (golden / n for n in ("d_mask_rcnn_R_50_C4", "f_keypoint_rcnn_R_50_FPN"))
    return {
        "demo": Model("demo", demo, None, (416, 544)),
        "keypoint": Model("keypoint R50-FPN", *_golden(keypoint), (224, 352)),
        "r50": Model("R50-FPN", photos.fitted_weights(), None, (800, 1344)),
        "c4": Model("R50-C4", *_golden(c4), (224, 352)),
    }


def _golden(folder: Path) -> tuple[Path, Path]:
    weights = next(f for f in sorted(folder.iterdir()) if f.suffix in (".pth", ".pkl"))
    return weights, folder / "config.yaml"


def main() -> int:
    """Compile all; status 1 when one does not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="demo,keypoint,r50,c4")
    parser.add_argument("--gpu", default=",".join(ARCHITECTURES))
    parser.add_argument("--photos", type=int, default=4, help="calibration photos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models.split(","):
            rows += _rows(_models()[name], args.gpu.split(","), args.photos, Path(folder))
    columns = ("model", "canvas", "precision", "architecture", "s", "engine MB", "verdict")
    data = {"rows": [dict(zip(columns, row, strict=True)) for row in rows]}
    title = "Engines in half precision and 8 bits"
    results.write(title, results.table(columns, rows), data, args.json, args.markdown)
    return 0 if all(row[-1] == "compiled" for row in rows) else 1


def _rows(
    model: Model, architectures: Sequence[str], count: int, folder: Path
) -> Iterator[list[str]]:
    for precision, graph in _graphs(model, count, folder):
        for architecture in architectures:
            started = time.perf_counter()
            size, verdict = "", "compiled"
            try:
                (built,) = build_engine(graph, folder, [architecture])
                size = f"{built.path.stat().st_size / 1e6:.0f}"
            except MaskportError as error:
                verdict = " ".join(str(error).split())[:120]
            seconds = f"{time.perf_counter() - started:.1f}"
            canvas = f"{model.canvas[0]} x {model.canvas[1]}"
            row = [model.title, canvas, precision, architecture, seconds, size, verdict]
            print("  ".join(row), flush=True)
            yield row


def _graphs(model: Model, count: int, folder: Path) -> Iterator[tuple[str, Path]]:
    shape = GraphShape(1, *model.canvas)
    sizes = SpecOptions(short_side=min(model.canvas), long_side=max(model.canvas))
    half, full = folder / "fp16.onnx", folder / "fp32.onnx"
    for path, precision in ((half, "fp16"), (full, "fp32")):
        export_onnx(
            model.weights,
            path,
            sizes,
            shape,
            check_photo=None,
            target="tensorrt-rtx",
            precision=precision,
            config=model.config,
        )
    yield "fp16", half
    table = folder / "table.json"
    table.unlink(missing_ok=True)
    for float_type in ("fp32", "fp16"):
        options = QuantizeOptions(
            preset="fast", float_type=float_type, rounding="nearest", table=table
        )
        path = folder / f"int8.{float_type}.onnx"
        quantize(full, calibration_photos()[:count], path, options)
        yield ("int8" if float_type == "fp32" else "int8+fp16"), path


if __name__ == "__main__":
    sys.exit(main())
