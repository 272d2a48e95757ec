"""8 bits against torchvision's eager model: methods and presets, both writers.

R50-FPN with the fitted weights at 320/533; calibrated on train2017 without the fitted photos;
agreement AP on val2017, COCO AP on the fitted photos with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_ir as ir

from bench import photos, results
from bench.fitted import LONG, SHORT, export_fitted, references
from calib.calibration.work import Kernels, count_kernels
from calib.evaluation.measure import EvaluationRow, Reference, evaluate_session
from calib.evaluation.photos import EvaluationSet
from calib.graph.layers import names_of
from calib.graph.presets import PRESETS
from calib.options import QuantizeOptions
from calib.quantizer import Quantizer, prepare
from export.onnx_file import read_onnx
from runtime.annotations.labeled_photos import find_labeled_photos
from runtime.annotations.labels import labels_for
from runtime.cli.console import Bar
from runtime.sessions.open import open_session

CALIBRATION_PHOTOS = 128
# The aim for the default preset: box AP, AP50, mask AP, AP50.
AIM = (80.0, 97.0, 74.0, 96.0)
# NVIDIA's removed sample, INT8 against FP32, box and mask AP.
NVIDIA = "-0.3 box, -0.2 mask"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to quantize."""

    writer: str
    options: QuantizeOptions
    labeled: bool = False

    @property
    def cells(self) -> list[str]:
        """Its cells of a row."""
        options = self.options
        return [
            self.writer,
            options.preset,
            options.method,
            options.rounding,
        ]


def _variants() -> list[Variant]:
    nearest = QuantizeOptions(rounding="nearest", preset="fast")
    methods = ("min-max", "percentile", "entropy", "mse")
    variants = [Variant("onnxruntime", replace(nearest, method=method)) for method in methods]
    for writer in ("onnxruntime", "tensorrt"):
        variants += [Variant(writer, QuantizeOptions(preset=p), labeled=True) for p in PRESETS]
    return variants


@dataclass(frozen=True, slots=True)
class Row:
    """The results of a variant."""

    variant: Variant
    fraction: float
    val: EvaluationRow
    fitted: EvaluationRow | None
    kernels: Kernels


def main() -> int:
    """Run every variant; status 1 when the default preset misses its aim."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        rows = _run(Path(folder), args.tables or Path(folder))
    _report(rows, args)
    default = QuantizeOptions()
    defaults = [row for row in rows if row.variant.options == default]
    return 0 if all(_reaches(row) for row in defaults) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder for calibration tables, to keep")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _run(folder: Path, tables: Path) -> list[Row]:
    source = export_fitted(folder)
    val, fitted = _references()
    rows: list[Row] = []
    quantizers: dict[tuple[object, ...], Quantizer] = {}
    for variant in _variants():
        options = variant.options
        key = options.method, options.rounding
        if key not in quantizers:
            quantizers = {key: _prepare(source, tables, options)}  # one at a time, for the memory
        context = replace(quantizers[key].context, writer=variant.writer, options=options)
        quantizer = replace(quantizers[key], context=context)
        rows.append(_row(quantizer, variant, val, fitted, folder / "candidate.onnx"))
        print("  ".join(_cells(rows[-1])), flush=True)
    return rows


def _references() -> tuple[Reference, Reference]:
    folder, ids = photos.data_folder() / "coco", photos.fitted_ids()
    found = find_labeled_photos(
        folder / "annotations" / "instances_train2017.json", folder / "train2017"
    )
    labels = labels_for(found.only(ids), photos.load_fitted(SHORT, LONG).spec)
    fitted = EvaluationSet(photos.fitted_photos(), labels, ids)
    of_val, of_fitted = references(EvaluationSet(photos.val_photos()), fitted)
    return of_val, of_fitted


def calibration_photos() -> list[Path]:
    """Of train2017, without the photos that the weights were fitted to."""
    fitted = set(photos.fitted_photos())
    files = sorted((photos.data_folder() / "coco" / "train2017").glob("*.jpg"))
    return [file for file in files if file not in fitted][:CALIBRATION_PHOTOS]


def _prepare(source: Path, tables: Path, options: QuantizeOptions) -> Quantizer:
    files = calibration_photos()
    table = tables / f"{options.method}.table.json"
    title = f"photos, {options.method} {options.rounding}"
    return prepare(
        read_onnx(source), files, table, options, lambda total, _: Bar(total, title).advance
    )


def _row(
    quantizer: Quantizer, variant: Variant, val: Reference, fitted: Reference, path: Path
) -> Row:
    model, placement = quantizer.quantized(quantizer.preset_nodes)
    ir.save(model, path)
    size = path.stat().st_size
    bar = Bar(len(val.photos.paths), "photos")
    session = open_session(path, None, None)
    on_val = evaluate_session("val", session, size, val, bar.advance)
    on_labels = None
    if variant.labeled:
        session = open_session(path, None, None)
        on_labels = evaluate_session("fitted", session, size, fitted, lambda _: None)
    fraction = quantizer.work_fraction(names_of(placement.layers))
    return Row(variant, fraction, on_val, on_labels, count_kernels(path))


def _reaches(row: Row) -> bool:
    scores = row.val.scores
    assert scores.mask is not None
    assert scores.mask50 is not None
    pairs = zip((scores.box, scores.box50, scores.mask, scores.mask50), AIM, strict=True)
    return all(value >= aim for value, aim in pairs)


def _cells(row: Row) -> list[str]:
    scores = row.val.scores
    changes = (
        [f"{c.change:+.2f} ({c.low:+.2f} to {c.high:+.2f})" for c in row.fitted.changes]
        if row.fitted
        else ["", ""]
    )
    kernels = row.kernels
    total = kernels.integer_convolutions + kernels.float_convolutions
    return [
        *row.variant.cells,
        f"{100 * row.fraction:.0f} %",
        *(f"{n:.1f}" for n in (scores.box, scores.box50, scores.mask or 0.0, scores.mask50 or 0.0)),
        *changes,
        row.val.worst.stem.lstrip("0") + f" ({row.val.worst_scores.lowest:.0f})",
        f"{row.val.seconds:.2f}",
        f"{row.val.size_bytes / 1e6:.0f}",
        f"{kernels.integer_convolutions} of {total}",
    ]


def _report(rows: Sequence[Row], args: argparse.Namespace) -> None:
    columns = (
        "Q/DQ for", "preset", "ranges", "rounding", "in 8 bits", "box AP", "box AP50",
        "mask AP", "mask AP50", "COCO box AP", "COCO mask AP",
        "worst photo (its lower AP)", "s/photo", "MB", "integer convolutions",
    )  # fmt: skip
    cells = [_cells(row) for row in rows]
    body = "\n\n".join(
        [
            results.table(columns, cells),
            "The photos of val2017 for agreement AP with the eager "
            "model's rows of score 0.3 and more; COCO AP: change on the 24 fitted photos with its "
            f"95 % bootstrap interval over photos (NVIDIA's sample gave {NVIDIA}). `in 8 bits`: "
            "multiply-adds whose data and weights are both quantized, on the first calibration "
            "photos, by all multiply-adds. s/photo: median with decoding and pasting, all cores.",
        ]
    )
    data = {"rows": [dict(zip(columns, row, strict=True)) for row in cells]}
    results.write("8 bits against torchvision's eager model", body, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
