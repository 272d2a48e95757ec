"""Techniques for 8 bits, each alone against the same file without it, both writers.

R50-FPN with the fitted weights at 320/533, all hidden layers in 8 bits, where a technique can gain
most; agreement AP with torchvision's eager model on val2017. Ranges and presets are in
`bench/precision.py`; the choice of layers is in `bench/precision_budget.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_ir as ir

from bench import photos, results
from bench.fitted import export_fitted, references
from bench.precision import calibration_photos
from calib.evaluation.measure import EvaluationRow, Reference, evaluate_session
from calib.evaluation.photos import EvaluationSet
from calib.graph.groups import groups_of
from calib.graph.layers import Layer, hidden_layers, names_of
from calib.graph.placement import (
    Placement,
    is_add,
    place_for_onnxruntime,
    place_for_tensorrt,
)
from calib.options import QuantizeOptions
from calib.quantizer import Quantizer, prepare
from calib.rounding.vnni import int8_accumulation_saturates
from calib.rounding.weights import WeightQuantizer
from calib.writers.registry import WRITERS
from export.onnx_file import read_onnx
from runtime.cli.console import Bar
from runtime.sessions.open import open_session

Place = Callable[[ir.Graph, Sequence[Layer]], Placement]


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to write the same choice of layers; None is the product's own way."""

    title: str
    writer: str
    place: Place | None = None
    weights: WeightQuantizer | None = None
    keeps_stem: bool = False


def techniques() -> list[Technique]:
    """All rows: the product's own way first, for either writer."""
    rows = []
    places: dict[str, Place] = {
        "onnxruntime": partial(place_for_onnxruntime, integer_adds=False),
        "tensorrt": place_for_tensorrt,
    }
    for writer, place in places.items():
        without_residual = partial(without_adds, place=place)
        rows += [
            Technique("as written by default", writer),
            Technique("weights rounded to nearest", writer, weights=WeightQuantizer()),
            Technique("first layer in floating point", writer, keeps_stem=True),
            Technique("what Adds read in floating point", writer, place=without_residual),
        ]
    return rows


def without_adds(graph: ir.Graph, layers: Sequence[Layer], place: Place) -> Placement:
    """No pair before the Adds of residual blocks and of the pyramid."""
    placement = place(graph, layers)
    for site in placement.sites:
        site.uses = [use for use in site.uses if not is_add(use[0])]
    return Placement(placement.layers, tuple(site for site in placement.sites if site.uses))


@dataclass(frozen=True, slots=True)
class Row:
    """The results of a technique."""

    technique: Technique
    fraction: float
    evaluation: EvaluationRow


def main() -> int:
    """Write, evaluate and print every row."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        quantizer = _prepare(folder, args.tables or folder)
        cells = _run(quantizer, folder / "candidate.onnx", args.photos, args.rows)
    _report(cells, args)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder for the calibration table, to keep")
    parser.add_argument("--rows", type=Path, help="file for finished rows, to resume from")
    parser.add_argument("--photos", type=int, help="evaluate on only so many photos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _prepare(folder: Path, tables: Path) -> Quantizer:
    source = export_fitted(folder)
    options = QuantizeOptions(preset="fast")
    files = calibration_photos()
    table = tables / f"{options.method}.table.json"
    return prepare(
        read_onnx(source),
        files,
        table,
        options,
        lambda total, title: Bar(total, f"photos, {title}").advance,
    )


def _run(quantizer: Quantizer, path: Path, count: int | None, keep: Path | None) -> list[list[str]]:
    """The table's rows; those in the file of an earlier run are not measured again."""
    sha256 = quantizer.context.model_sha256
    known = _known(sha256, count, keep)
    missing = [one for one in techniques() if _key(one) not in known]
    if missing:
        (reference,) = references(EvaluationSet(photos.val_photos()[:count]))
    for technique in missing:
        row = _measure(quantizer, technique, reference, path)
        known[_key(technique)] = _cells(row)
        print("  ".join(known[_key(technique)]), flush=True)
        if keep is not None:
            document = {"model_sha256": sha256, "photos": count, "rows": known}
            keep.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return [known[_key(one)] for one in techniques()]


def _known(sha256: str, count: int | None, keep: Path | None) -> dict[str, list[str]]:
    if keep is None or not keep.exists():
        return {}
    document = json.loads(keep.read_text("utf-8"))
    if (document["model_sha256"], document["photos"]) != (sha256, count):
        sys.exit(f"error: {keep}: rows of another model or of other photos; delete it")
    return dict(document["rows"])


def _key(technique: Technique) -> str:
    return f"{technique.writer}: {technique.title}"


def _measure(quantizer: Quantizer, technique: Technique, reference: Reference, path: Path) -> Row:
    # Weights may have another range with another writer.
    context = replace(quantizer.context, writer=technique.writer)
    quantizer = replace(quantizer, context=context, weights=technique.weights or quantizer.weights)
    model, placement = written(quantizer, technique)
    ir.save(model, path)
    session, size = open_session(path, None, None), path.stat().st_size
    advance = Bar(len(reference.photos.paths), f"photos, {_key(technique)}").advance
    row = evaluate_session(technique.title, session, size, reference, advance)
    return Row(technique, quantizer.work_fraction(names_of(placement.layers)), row)


def written(quantizer: Quantizer, technique: Technique) -> tuple[ir.Model, Placement]:
    """The graph with all hidden layers, or all but the stem, in 8 bits."""
    copy, writer = quantizer.model.clone(), WRITERS[quantizer.context.writer]
    layers = hidden_layers(copy.graph)
    if technique.keeps_stem:
        stem = groups_of(copy.graph, layers)[0]
        layers = [layer for layer in layers if layer.name not in stem.nodes]
    placement = (technique.place or writer.place)(copy.graph, layers)
    fmt = quantizer.context.format
    writer.write(copy.graph, placement, fmt, quantizer.ranges, quantizer.weights)
    return copy, placement


def _cells(row: Row) -> list[str]:
    scores = row.evaluation.scores
    return [
        row.technique.writer,
        row.technique.title,
        f"{100 * row.fraction:.0f} %",
        *(f"{n:.1f}" for n in (scores.box, scores.box50, scores.mask or 0.0, scores.mask50 or 0.0)),
        f"{row.evaluation.size_bytes / 1e6:.0f}",
        results.commit(),
    ]


def _report(cells: Sequence[Sequence[str]], args: argparse.Namespace) -> None:
    columns = (
        "Q/DQ for", "technique", "in 8 bits", "box AP", "box AP50", "mask AP", "mask AP50",
        "MB", "at commit",
    )  # fmt: skip
    bits = "7 bits, for this CPU has no VNNI" if int8_accumulation_saturates() else "8 bits"
    count = len(photos.val_photos()[: args.photos])
    body = "\n\n".join(
        [
            results.table(columns, cells),
            f"All hidden layers, ranges by `mse`, weights for ONNX Runtime in {bits}. Agreement "
            f"with the eager model's rows of score 0.3 and more on {count} photos of val2017.",
        ]
    )
    data: dict[str, Any] = {"rows": [dict(zip(columns, row, strict=True)) for row in cells]}
    results.write("Techniques for 8 bits, each alone", body, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
