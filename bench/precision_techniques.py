"""What single techniques do for 8 bits: each alone, against the same file without it, both writers.

R50-FPN with the fitted weights at 320/533, all hidden layers in 8 bits, where a technique has most
to mend; agreement AP with torchvision's eager model on val2017. Ranges and presets are in
`bench/precision.py`; choosing layers by what they cost, in `bench/precision_budget.py`.
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
from bench.fitted import export_fitted, judges
from bench.precision import calibration_photos
from calib.evaluation.measure import EvaluationPhotos, Proof, prove
from calib.graph.groups import groups_of
from calib.graph.layers import Layer, weighted_layers
from calib.graph.placement import (
    Placement,
    is_add,
    place_for_onnxruntime,
    place_for_tensorrt,
)
from calib.graph.presets import chosen_layers
from calib.options import QuantizeOptions
from calib.quantize import photo_runs
from calib.quantizer import Job, prepare
from calib.rounding.vnni import sums_saturate
from calib.rounding.weights import Rounder, round_to_nearest
from calib.writers.registry import WRITERS
from export.onnx_file import read_onnx
from runtime.cli.console import Bar
from runtime.sessions.open import open_session

Place = Callable[[ir.Graph, Sequence[Layer]], Placement]


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to write the same choice of layers; what is None is as the product does it."""

    title: str
    writer: str
    place: Place | None = None
    rounder: Rounder | None = None
    keeps_stem: bool = False


def techniques() -> list[Technique]:
    """All rows: the product's own way first, for either writer."""
    found = []
    places: dict[str, Place] = {
        "onnxruntime": partial(place_for_onnxruntime, integer_adds=False),
        "tensorrt": place_for_tensorrt,
    }
    for writer, place in places.items():
        without_residual = partial(without_adds, place=place)
        found += [
            Technique("as written by default", writer),
            Technique("weights rounded to nearest", writer, rounder=round_to_nearest),
            Technique("first layer in floating point", writer, keeps_stem=True),
            Technique("what Adds read in floating point", writer, place=without_residual),
        ]
    return found


def without_adds(graph: ir.Graph, layers: Sequence[Layer], place: Place) -> Placement:
    """No pair in front of an Add, of residual blocks and of the pyramid."""
    placement = place(graph, layers)
    for site in placement.sites:
        site.uses = [use for use in site.uses if not is_add(use[0])]
    return Placement(placement.layers, tuple(site for site in placement.sites if site.uses))


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one."""

    technique: Technique
    share: float
    proof: Proof


def main() -> int:
    """Write, judge and print every row."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = _prepare(folder, args.tables or folder)
        cells = _run(job, folder / "candidate.onnx", args.photos, args.rows)
    _report(cells, args)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, help="folder for the calibration table, to keep")
    parser.add_argument("--rows", type=Path, help="file for finished rows, to go on from")
    parser.add_argument("--photos", type=int, help="judge on only so many photos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _prepare(folder: Path, tables: Path) -> Job:
    source = export_fitted(folder)
    options = QuantizeOptions(preset="fast")
    files = calibration_photos()
    bar = Bar(photo_runs(len(files), options), "photos, ranges and rounding")
    table = tables / f"{options.method}.table.json"
    return prepare(read_onnx(source), source, table, files, options, bar.advance)


def _run(job: Job, path: Path, count: int | None, keep: Path | None) -> list[list[str]]:
    """The table's rows; those that a file of an earlier run holds are not measured again."""
    known = _known(job, count, keep)
    missing = [one for one in techniques() if _key(one) not in known]
    if missing:
        (on,) = judges((photos.val_photos()[:count], None))
    for technique in missing:
        row = _measure(job, technique, on, path)
        known[_key(technique)] = _cells(row)
        print("  ".join(known[_key(technique)]), flush=True)
        if keep is not None:
            document = {"model_sha256": job.file.sha256, "photos": count, "rows": known}
            keep.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return [known[_key(one)] for one in techniques()]


def _known(job: Job, count: int | None, keep: Path | None) -> dict[str, list[str]]:
    if keep is None or not keep.exists():
        return {}
    found = json.loads(keep.read_text("utf-8"))
    if (found["model_sha256"], found["photos"]) != (job.file.sha256, count):
        sys.exit(f"error: {keep}: rows of another model or of other photos; delete it")
    return dict(found["rows"])


def _key(technique: Technique) -> str:
    return f"{technique.writer}: {technique.title}"


def _measure(job: Job, technique: Technique, on: EvaluationPhotos, path: Path) -> Row:
    # Another writer may have another range of the weights.
    of_writer = replace(job, writer=technique.writer)
    model, placement = written(of_writer, technique)
    ir.save(model, path)
    advance = Bar(len(on.photos), f"photos, {_key(technique)}").advance
    size = path.stat().st_size
    proof = prove(technique.title, open_session(path, None, None), size, on, advance)
    return Row(technique, of_writer.share(placement), proof)


def written(job: Job, technique: Technique) -> tuple[ir.Model, Placement]:
    """The graph with all hidden layers, or all but the stem, in 8 bits."""
    copy, writer = job.model.clone(), WRITERS[job.writer]
    layers = chosen_layers(weighted_layers(copy.graph), "fast")
    if technique.keeps_stem:
        stem = groups_of(copy.graph, layers)[0]
        layers = [layer for layer in layers if layer.node.name not in stem.nodes]
    placement = (technique.place or writer.place)(copy.graph, layers)
    rounder = technique.rounder or job.rounder
    writer.write(copy.graph, placement, job.format, job.ranges, rounder)
    return copy, placement


def _cells(row: Row) -> list[str]:
    found = row.proof.scores
    return [
        row.technique.writer,
        row.technique.title,
        f"{100 * row.share:.0f} %",
        *(f"{n:.1f}" for n in (found.box, found.box50, found.mask or 0.0, found.mask50 or 0.0)),
        f"{row.proof.size_bytes / 1e6:.0f}",
        results.commit(),
    ]


def _report(cells: Sequence[Sequence[str]], args: argparse.Namespace) -> None:
    columns = (
        "Q/DQ for", "technique", "in 8 bits", "box AP", "box AP50", "mask AP", "mask AP50",
        "MB", "at commit",
    )  # fmt: skip
    bits = "7 bits, for this CPU has no VNNI" if sums_saturate() else "8 bits"
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
