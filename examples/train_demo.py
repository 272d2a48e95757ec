"""Train the demo model: a small Mask R-CNN that detects colored shapes.

    python examples/train_demo.py -o examples/demo

Writes the weights, the class names and the sample image; `shapes.py` draws the pictures. The
network is torchvision's own `MaskRCNN` around a narrow ResNet, trained from scratch with
torchvision's losses.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torchvision.models.resnet import BasicBlock

from examples.shapes import NAMES, Scene, make_scene

SHORT_SIDE, LONG_SIDE = 320, 533
STEM = 24
WIDTHS = (24, 48, 96, 192)
BLOCKS = (2, 2, 2, 2)
PYRAMID_WIDTH = 64
BOX_WIDTH = 128
MASK_WIDTHS = (64, 64)

BATCH = 4
TRAIN_SHORT_SIDES = (208, 240, 272, 304)
LEARNING_RATE = 1.5e-3
WARMUP_STEPS = 100
# Scenes are drawn from (stream, index), so that evaluation scenes are not training scenes.
TRAINING_STREAM, HELD_OUT_STREAM = 0, 1
SAMPLE_SEED, SAMPLE_HW, SAMPLE_SHAPES = (2, 8), (480, 640), 15


class NarrowResNet(nn.Sequential):
    """A ResNet of basic blocks with torchvision's parameter names."""

    def __init__(self, stem: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        """Take the stem's channels, and the channels and the number of blocks of each stage."""
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False),
            bn1=nn.BatchNorm2d(stem),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = stem
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            layers[f"layer{index + 1}"] = _stage(channels, width, count, stride=1 + (index > 0))
            channels = width
        super().__init__(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(channels: int, width: int, count: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or channels != width:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    first = BasicBlock(channels, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(count - 1)))


def build_model() -> MaskRCNN:
    """Build torchvision's `MaskRCNN` with the demo's widths, else with its defaults."""
    backbone = BackboneWithFPN(
        NarrowResNet(STEM, WIDTHS, BLOCKS),
        return_layers={f"layer{i + 1}": str(i) for i in range(4)},
        in_channels_list=list(WIDTHS),
        out_channels=PYRAMID_WIDTH,
    )
    return MaskRCNN(
        backbone,
        min_size=SHORT_SIDE,
        max_size=LONG_SIDE,
        # Few proposals and few samples keep a step cheap; they matter in training only.
        rpn_pre_nms_top_n_train=400,
        rpn_post_nms_top_n_train=200,
        box_batch_size_per_image=96,
        box_head=TwoMLPHead(PYRAMID_WIDTH * 7 * 7, BOX_WIDTH),
        box_predictor=FastRCNNPredictor(BOX_WIDTH, len(NAMES)),
        mask_head=MaskRCNNHeads(PYRAMID_WIDTH, MASK_WIDTHS, 1),
        mask_predictor=MaskRCNNPredictor(MASK_WIDTHS[-1], MASK_WIDTHS[-1], len(NAMES)),
    )


def image_tensor(scene: Scene) -> Tensor:
    """A scene's picture as torchvision's input: float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(scene.image_rgb).permute(2, 0, 1).float() / 255


def target(scene: Scene) -> dict[str, Tensor]:
    """A scene's ground truth as torchvision's target, in image pixels."""
    return {
        "boxes": torch.from_numpy(scene.boxes_xyxy),
        "labels": torch.from_numpy(scene.labels),
        "masks": torch.from_numpy(scene.masks).to(torch.uint8),
    }


def training_batch(seed: int, step: int) -> list[Scene]:
    """The scenes of one step, new in every step, landscape and portrait."""
    scenes = []
    for index in range(BATCH):
        long_side = 288 + 16 * ((step + index) % 6)
        hw = (288, long_side) if (step + index) % 4 else (long_side, 288)
        key = (TRAINING_STREAM, seed, step, index)
        scenes.append(make_scene(key, hw, 6 + (step * BATCH + index) % 9))
    return scenes


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up and cosine decay to zero."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict in float16, atomically."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def fit(model: MaskRCNN, steps: int, seed: int, path: Path) -> None:
    """Train `model` in place, printing progress and saving to `path` every 500 steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps)
    )
    model.train()
    model.transform.min_size = TRAIN_SHORT_SIDES
    start, recent = time.monotonic(), 0.0
    for step in range(steps):
        scenes = training_batch(seed, step)
        losses = model([image_tensor(s) for s in scenes], [target(s) for s in scenes])
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        recent = loss.item() if step == 0 else 0.95 * recent + 0.05 * loss.item()
        if (step + 1) % 20 == 0:
            elapsed = time.monotonic() - start
            print(f"step {step + 1}/{steps}  loss {recent:.3f}  {elapsed:.0f} s", flush=True)
        if (step + 1) % 500 == 0:
            save_weights(model, path)
    save_weights(model, path)
    model.transform.min_size = (SHORT_SIDE,)


def write_sample(folder: Path) -> None:
    """Write the class names and one held-out picture."""
    sample = make_scene(SAMPLE_SEED, SAMPLE_HW, SAMPLE_SHAPES)
    Image.fromarray(sample.image_rgb).save(folder / "shapes.jpg", quality=92)
    (folder / "shapes.names").write_text("\n".join(NAMES) + "\n", encoding="utf-8")


def _records(rows: dict[str, Tensor], image_id: int) -> list[dict[str, Any]]:
    """COCO annotations or results of one picture; ground truth has no `scores`."""
    from pycocotools import mask as rle

    scores = rows.get("scores", torch.ones(len(rows["labels"])))
    records = []
    for box, label, mask, score in zip(
        rows["boxes"].tolist(), rows["labels"], rows["masks"], scores, strict=True
    ):
        binary = (mask.squeeze(0) > 0.5).to(torch.uint8).numpy()
        records.append(
            {
                "image_id": image_id,
                "category_id": int(label),
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                "segmentation": rle.encode(np.asfortranarray(binary)),
                "area": float(binary.sum()),
                "iscrowd": 0,
                "score": float(score),
            }
        )
    return records


@torch.inference_mode()
def average_precision(model: MaskRCNN, count: int) -> dict[str, tuple[float, float]]:
    """(AP, AP at IoU 0.5) of "bbox" and "segm", after COCO, on `count` held-out pictures."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    model.eval()
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index in range(count):
        scene = make_scene((HELD_OUT_STREAM, index), SAMPLE_HW, SAMPLE_SHAPES)
        truths += _records(target(scene), index)
        results += _records(model([image_tensor(scene)])[0], index)
    scores = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        height, width = SAMPLE_HW
        truth.dataset = {
            "images": [{"id": i, "height": height, "width": width} for i in range(count)],
            "categories": [{"id": i, "name": n} for i, n in enumerate(NAMES) if i],
            "annotations": [{"id": i + 1, **record} for i, record in enumerate(truths)],
        }
        truth.createIndex()
        for iou_type in ("bbox", "segm"):
            # loadRes modifies the records.
            evaluation = COCOeval(truth, truth.loadRes([dict(r) for r in results]), iou_type)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            scores[iou_type] = (float(evaluation.stats[0]), float(evaluation.stats[1]))
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Train the demo model: a small Mask R-CNN.")
    parser.add_argument("-o", "--output", type=Path, default=Path("examples/demo"))
    parser.add_argument("--steps", type=int, default=2600, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the pictures")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument(
        "--evaluate", type=int, metavar="N", help="do not train; AP of the weights on N pictures"
    )
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    weights, model = args.output / "shapes.pth", build_model()
    if args.evaluate:
        model.load_state_dict(torch.load(weights, weights_only=True))
        for iou_type, (mean, at_half) in average_precision(model, args.evaluate).items():
            print(f"{iou_type}  AP {mean:.3f}  AP50 {at_half:.3f}")
        return 0
    args.output.mkdir(parents=True, exist_ok=True)
    write_sample(args.output)
    fit(model, args.steps, args.seed, weights)
    print(f"wrote {weights}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
