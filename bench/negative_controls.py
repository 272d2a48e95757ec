"""Correct files pass the export's check, wrong ones are refused: quiet and noisy models.

Each fault is put into a correct file, or into its results, and compared with eager as the export
does. Where a fault is too small for a model, a larger one is tried until one is refused. The table
also has what the multiples of `runtime.compare.noise` rest on: the correct file's differences from
eager over those of eager from itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import onnx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import graph_faults, noisy_models, photos, results
from export.onnx import export_onnx
from export.onnx_file import remove_checksum
from export.parity.eager_variants import model_noise
from export.parity.torchvision_reference import EagerRun, TorchvisionEager
from model.arrays import UInt8
from model.checkpoint import SpecOptions, load
from runtime.compare.differences import differences
from runtime.compare.limits import Verdict
from runtime.compare.matching import compare
from runtime.compare.noise import Noise
from runtime.compare.noise_check import check_with_noise
from runtime.detections import Detections
from runtime.predictor import Predictor
from runtime.sources.photos import decode

_SMALL = SpecOptions(short_side=320, long_side=533)
# Layers whose bias is scaled: these fractions of the way through the file's convolutions.
_LAYERS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FACTORS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 10.0)
_CELLS = (0.1, 0.2, 0.5, 1.0)
_MASK_ROWS = (0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Control:
    """A fault in increasing sizes: what each of them returns in the place of the correct result."""

    kind: str
    sizes: Mapping[str, Callable[[], Detections]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The smallest size of a fault that is refused, empty for none, and the reason."""

    control: Control
    refused: str
    reason: str


class Model:
    """A checkpoint, its correct file, and the eager run of one photo."""

    def __init__(self, name: str, weights: Path, options: SpecOptions, photo: UInt8) -> None:
        self.name, self.photo = name, photo
        self.path = weights.with_suffix(".onnx")
        export_onnx(weights, self.path, options, check_photo=None)
        self.eager = TorchvisionEager(load(weights, options))
        self.threshold = self.eager.spec.box.score_threshold

    @cached_property
    def run(self) -> EagerRun:
        """Of the eager model."""
        return self.eager.run(self.photo, self.threshold)

    @cached_property
    def noise(self) -> Noise:
        """Of the export's one variant."""
        photo, run = {self.name: self.photo}, {self.name: self.run}
        return model_noise(self.eager, photo, run, self.threshold)

    @cached_property
    def graph(self) -> onnx.ModelProto:
        """The correct file."""
        return remove_checksum(onnx.load(self.path))

    @cached_property
    def correct(self) -> Detections:
        """The results of the correct file."""
        return self.predicted(self.path)

    def predicted(self, path: Path) -> Detections:
        """The results of a file."""
        with Predictor.open(path, on_uncertified="ignore") as predictor:
            return predictor.predict(self.photo)

    def predicted_with(self, change: Callable[[onnx.ModelProto], None]) -> Detections:
        """The results of the file with a fault."""
        wrong = onnx.ModelProto()
        wrong.CopyFrom(self.graph)
        change(wrong)
        path = self.path.with_name("wrong.onnx")
        onnx.save(wrong, path)
        return self.predicted(path)

    def verdict(self, candidate: Detections) -> Verdict:
        """As in the export's check."""
        verdict, _ = check_with_noise(
            [compare(self.run.detections, candidate, self.name)],
            lambda _: self.run.trace,
            lambda: self.noise,
        )
        return verdict

    def controls(self) -> Iterator[Control]:
        """Every fault for this model."""
        wrong = self.predicted_with
        shifts = {str(c): partial(wrong, partial(graph_faults.shift_rois, cells=c)) for c in _CELLS}
        yield Control("RoIAlign shifted, cells", shifts)
        for name, classes in self._pairs().items():
            swap = partial(graph_faults.swap_classes, classes=classes)
            yield Control("two classes swapped", {name: partial(wrong, swap)})
        yield Control("channels swapped", {"BGR": partial(wrong, graph_faults.swap_channels)})
        names = graph_faults.biases(self.graph)
        layers = dict.fromkeys(names[round(at * (len(names) - 1))] for at in _LAYERS)
        for name in layers:
            scaled = partial(graph_faults.scale_bias, name=name)
            factors = {str(f): partial(wrong, partial(scaled, factor=f)) for f in _FACTORS}
            yield Control(f"bias of {name.removesuffix('.weight_bias')} times", factors)
        rows = len(self.correct)
        yield Control("last row dropped", {"": partial(self.correct.take, np.arange(rows - 1))})
        if self.correct.mask_probs is not None:
            # A row that a near tie puts in the place of another one has nothing to compare with.
            matched = compare(self.run.detections, self.correct).matching.pairs[:, 1]
            for row in [int(matched[round(at * (len(matched) - 1))]) for at in _MASK_ROWS]:
                flipped = partial(_flipped, self.correct, row)
                yield Control("mask transposed", {f"row {row}": flipped})

    def _pairs(self) -> Mapping[str, tuple[int, int]]:
        """The two most frequent classes, and the rarest that was found with the most frequent."""
        count = np.bincount(self.run.detections.labels, minlength=3)
        order = (np.argsort(-count[1:], kind="stable") + 1).tolist()
        rarest = [label for label in order if count[label]][-1]
        pairs = [(order[0], order[1]), (order[0], rarest)]
        return {f"{a} ({count[a]} rows), {b} ({count[b]})": (a, b) for a, b in pairs if a != b}


def outcome(model: Model, control: Control) -> Outcome:
    """Try the sizes of a fault until one is refused."""
    for size, result in control.sizes.items():
        verdict = model.verdict(result())
        if not verdict.passed:
            return Outcome(control, size or "yes", _reason(verdict))
    return Outcome(control, "", "")


def _flipped(result: Detections, row: int) -> Detections:
    assert result.mask_probs is not None
    probs = result.mask_probs.copy()
    probs[row] = probs[row].T
    return replace(result, mask_probs=probs)


def _reason(verdict: Verdict) -> str:
    rows = [f"{e.quantity} of row {e.row}" for e in verdict.excesses if not e.near_tie]
    statistics = [f"{e.statistic} of {e.quantity}" for e in verdict.statistics]
    first = [*statistics, *rows, f"{verdict.near_tie_rows} rows from near ties"]
    return first[0] + (f" and {len(first) - 2} more" if len(first) > 2 else "")


def main() -> int:
    """Run every model; status 1 if a correct file is refused or a first size is not."""
    args = _arguments()
    photo = decode(photos.val_photos()[0])
    correct: list[list[str]] = []
    faults: list[list[str]] = []
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        for model in _models(Path(folder), photo, args.only):
            start = time.perf_counter()
            verdict = model.verdict(model.correct)
            correct.append(_correct_row(model, verdict, time.perf_counter() - start))
            print(" · ".join(correct[-1]), flush=True)
            passed &= verdict.passed
            for control in model.controls():
                found = outcome(model, control)
                first = next(iter(control.sizes))
                row = [model.name, control.kind, first, found.refused or "none", found.reason]
                faults.append(row)
                print(" · ".join(row), flush=True)
                passed &= bool(found.refused)
            model.path.unlink()
    _report(correct, faults, args)
    return 0 if passed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="only models whose name contains this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _models(folder: Path, photo: UInt8, only: str | None) -> Iterator[Model]:
    fitted = photos.fitted_weights()
    demo = photos.ROOT / "examples" / "demo" / "shapes.pth"
    names = (photos.ROOT / "examples" / "demo" / "shapes.names").read_text("utf-8").split()
    quiet = {
        "R50, fitted to COCO photos": (fitted, _SMALL),
        "demo": (demo, replace(_SMALL, names=tuple(names))),
    }
    pixels = [decode(path) for path in photos.val_photos()[:2]]
    tensors = [torch.tensor(p).permute(2, 0, 1).float() / 255 for p in pixels]
    for name in [*quiet, *noisy_models.NOISY]:
        if only is not None and only not in name:
            continue
        weights, options = folder / "weights.pth", _SMALL
        if name in quiet:
            source, options = quiet[name]
            weights.unlink(missing_ok=True)
            weights.symlink_to(source.resolve())
        else:
            noisy_models.write(name, weights, tensors)
        yield Model(name, weights, options, photo)
        weights.unlink()


def _correct_row(model: Model, verdict: Verdict, seconds: float) -> list[str]:
    file = differences([compare(model.run.detections, model.correct, model.name)])
    quotients = []
    for fraction in (0.5, 0.99, 1.0):
        over = [
            file[quantity].quantile(fraction) / noise
            for quantity in ("score", "score_logit", "box_px", "edge_relative", "mask_probability")
            if quantity in file and (noise := model.noise.quantile(quantity, fraction))
        ]
        quotients.append(f"{max(over, default=0.0):.1f}")
    return [
        model.name,
        f"{verdict.equal_detections} of {verdict.detections}",
        f"{verdict.worst_box_diff_px or 0:.4f}",
        f"{model.noise.worst('box_px'):.4f}",
        *quotients,
        f"{seconds:.1f}",
        "passed" if verdict.passed else "REFUSED",
    ]


def _report(correct: list[list[str]], faults: list[list[str]], args: argparse.Namespace) -> None:
    of_files = (
        "model", "equal", "file from eager, px", "eager from itself, px", "median", "p99",
        "worst", "seconds", "verdict",
    )  # fmt: skip
    of_faults = ("model", "fault", "first size", "smallest refused", "by")
    seen = sum(smallest in (first, "yes") for _, _, first, smallest, _ in faults)
    body = "\n\n".join(
        [
            "Correct files. `median`, `p99`, `worst`: the largest quotient over all quantities of "
            "the file's difference from eager and eager's from itself (other convolutions).",
            results.table(of_files, correct),
            f"{seen} of {len(faults)} faults are refused at their first size.",
            results.table(of_faults, faults),
        ]
    )
    data = {
        "correct": [dict(zip(of_files, row, strict=True)) for row in correct],
        "faults": [dict(zip(of_faults, row, strict=True)) for row in faults],
    }
    results.write("Negative controls of the export's check", body, data, args.json, args.markdown)


if __name__ == "__main__":
    sys.exit(main())
