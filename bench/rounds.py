"""NMS rounds and candidates that real photos need.

All photos of val2017 and the fitted ones through our eager network at 800x1344 or 1344x800. The
defaults of `--nms-rounds` are at most twice the rounds needed here. Exit status 1 when a photo
needs more than the default, or when the default cut would leave a result uncertified.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import photos, results
from export.targets import native_candidates
from model.mask_rcnn import MaskRCNN
from model.native.options import NativeOptions, even_size
from model.ops import OPAQUE, OpaqueOperators
from runtime.cli.console import Bar
from runtime.preprocessing.canvas import to_canvas
from runtime.sources.photos import decode

ALL_CANDIDATES = 6000


def stable_topk(values: Tensor, count: int, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Top-k with equal values in order of their index, as in ONNX Runtime; PyTorch has no order.

    A flat part of a photo gives equal logits in all cells, and their order makes long NMS chains.
    """
    ranked, index = values.sort(dim=dim, descending=True, stable=True)
    return ranked.narrow(dim, 0, count), index.narrow(dim, 0, count)


@dataclass(slots=True)
class CountingOperators(OpaqueOperators):
    """The eager operators, which also count the iterations that an engine needs."""

    block: int
    candidates: int
    detections: int
    rounds: dict[str, Counter[int]] = field(default_factory=dict)
    most_where_few_survive: int = 0
    most: int = 0
    uncertified: int = 0

    def nms_keep(
        self, boxes: Tensor, valid: Tensor, groups: Tensor, num_groups: int, iou: float, stage: str
    ) -> tuple[Tensor, Tensor]:
        """Run the eager operator; count the rounds of each photo's worst block."""
        keep, undecided = OPAQUE.nms_keep(boxes, valid, groups, num_groups, iou, stage)
        if stage == "detections":
            self._count_candidates(valid[0], keep[0])
            cut = slice(0, self.candidates)
            boxes, valid, groups = boxes[:, cut], valid[:, cut], groups[:, cut]
        worst = max(
            self._needed(*problem, num_groups > 1, iou)
            for problem in zip(boxes, valid, groups, strict=True)
        )
        self.rounds.setdefault(stage, Counter())[worst] += 1
        return keep, undecided

    def _count_candidates(self, valid: Tensor, keep: Tensor) -> None:
        passed, survive = int(valid.sum()), int(keep.sum())
        self.most = max(self.most, passed)
        if survive < self.detections:
            self.most_where_few_survive = max(self.most_where_few_survive, passed)
        # Greedy NMS decides a box by higher ranks only: the first K decide the same without others.
        short = int(keep[: self.candidates].sum()) < self.detections
        self.uncertified += short and passed > self.candidates

    def _needed(
        self, boxes: Tensor, valid: Tensor, groups: Tensor, grouped: bool, iou: float
    ) -> int:
        """Rounds until nothing changes, for the worst block; the last round certifies."""
        matrix = _suppresses(boxes, iou)
        if grouped:
            matrix &= groups[:, None] == groups[None, :]
        matrix = matrix.tril(-1).float()
        size = even_size(len(boxes), self.block)
        kept, most = torch.zeros(len(boxes)), 0
        for start in range(0, len(boxes), size):
            rows = slice(start, start + size)
            own = matrix[rows, rows]
            candidates = torch.relu(valid[rows].float() - matrix[rows, :start] @ kept[:start])
            keep, rounds = candidates, 0
            while True:
                before, keep = keep, torch.relu(candidates - own @ keep)
                rounds += 1
                if torch.equal(before, keep):
                    break
            kept[rows] = keep
            most = max(most, rounds)
        return most


def _suppresses(boxes: Tensor, iou: float) -> Tensor:
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return shared / (area[None, :] + area[:, None] - shared) > iou


def main() -> int:
    """Count on all photos."""
    args = _arguments()
    Tensor.topk = stable_topk  # type: ignore[assignment, method-assign]
    checkpoint, options = photos.load_fitted(800, 1333), NativeOptions()
    spec = checkpoint.spec
    counting = CountingOperators(options.nms_block, native_candidates(spec), spec.box.detections)
    everything = replace(spec, box=replace(spec.box, candidates=ALL_CANDIDATES))
    network = replace(checkpoint, spec=everything).build()
    network.use_operators(counting)
    files = [*photos.val_photos(), *photos.fitted_photos()][: args.photos]
    _run(network, files)
    return _report(counting, options, len(files), args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, help="only so many photos")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _run(network: MaskRCNN, files: Sequence[Path]) -> None:
    # Nothing after the last NMS is used.
    network.mask_head = None
    bar = Bar(len(files), "photos")
    for file in files:
        pixels = decode(file)
        hw = (800, 1344) if pixels.shape[1] >= pixels.shape[0] else (1344, 800)
        canvas = to_canvas([pixels], network.spec.preprocess, hw, 1)
        with torch.inference_mode():
            network(torch.from_numpy(canvas.images), torch.from_numpy(canvas.image_hw))
        bar.advance()


def _report(
    counting: CountingOperators, options: NativeOptions, count: int, args: argparse.Namespace
) -> int:
    defaults = {"proposals": options.proposal_rounds, "detections": options.detection_rounds}
    columns = ("NMS of", "max rounds needed", "default", "photos by rounds needed")
    rows = [
        [
            stage,
            str(max(counts)),
            str(defaults[stage]),
            ", ".join(f"{rounds}: {photos}" for rounds, photos in sorted(counts.items())),
        ]
        for stage, counts in counting.rounds.items()
    ]
    note = (
        f"{count} photos, blocks of at most {options.nms_block} boxes. Of the best "
        f"{ALL_CANDIDATES} candidates at most {counting.most} passed threshold and size; where "
        f"fewer than {counting.detections} survived NMS, at most "
        f"{counting.most_where_few_survive}. The default cut at {counting.candidates} leaves "
        f"{counting.uncertified} photos uncertified."
    )
    data = {
        "rounds": {stage: dict(sorted(c.items())) for stage, c in counting.rounds.items()},
        "most_candidates": counting.most,
        "most_candidates_where_few_survive": counting.most_where_few_survive,
        "uncertified": counting.uncertified,
    }
    body = f"{results.table(columns, rows)}\n\n{note}"
    results.write("NMS rounds on real photos", body, data, args.json, args.markdown)
    enough = all(max(needed) <= defaults[stage] for stage, needed in counting.rounds.items())
    return 0 if enough and counting.uncertified == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
