"""What surrounds Matterport's convolutions, eager, against the published definition in NumPy.

The oracle is fed with the network's own head outputs, so that only proposals, levels, crops,
detections and the way back to the photo are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import SpecOptions, load
from model.mask_rcnn import MaskRCNN, Outputs
from model.ops import OpaqueOperators, pyramid_levels
from model.placement import Windows, image_windows
from model.spec import PoolerSpec
from runtime.detections import Detections
from runtime.postprocessing.from_raw import RawDetections, from_raw
from runtime.preprocessing.canvas import Canvas, to_canvas
from tests.keras_matterport import Widths, random_weights, write_h5
from tests.lively import picture
from tests.oracles import matterport as oracle

pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
SIDE, CANONICAL = 256, 64.0
MIN_CONFIDENCE = 0.4
PHOTO_HW = (150, 233)
XY = [1, 0, 3, 2]


class OracleCrops(OpaqueOperators):
    """Pools by the oracle, level choice included; NMS is the network's own."""

    def pyramid_pool(
        self, features: Sequence[Tensor], rois: Tensor, valid: Tensor, spec: PoolerSpec
    ) -> tuple[Tensor, Tensor]:
        maps = [f.numpy() for f in features[: len(spec.strides)]]
        boxes = normalized(rois.reshape(-1, 4).double().numpy())
        size = spec.output_size
        pooled = torch.zeros(len(boxes), maps[0].shape[1], size, size)
        for row, box in enumerate(boxes):
            if valid.reshape(-1)[row]:
                image = row // rois.shape[1]
                feature = maps[oracle.level(box, SIDE, CANONICAL) - 2][image]
                pooled[row] = torch.from_numpy(oracle.crop_and_resize(feature, box, size))
        return pooled, torch.zeros(len(rois), dtype=torch.int32)


def normalized(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Canvas boxes that end a pixel early, to y1 x1 y2 x2 from 0 to 1."""
    return boxes_xyxy[:, XY] / (SIDE - 1)


@dataclass(frozen=True)
class Run:
    """One photo through the network, and the parts that an oracle needs."""

    network: MaskRCNN
    canvas: Canvas
    windows: Windows
    features: list[Tensor]
    outputs: Outputs
    detections: Detections


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(21, id="few-detections"),
        pytest.param(9, id="fewer-proposals-than-the-limit"),
        pytest.param(11, id="more-detections-than-the-limit"),
    ],
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("keras") / "mask_rcnn.h5"
    write_h5(path, random_weights(Widths(), seed=request.param))
    # A small canvas has small objects; the level rule is scaled so that all levels are in use.
    pooler = {"canonical_size": CANONICAL * (SIDE - 1) / SIDE}
    options = SpecOptions(
        short_side=192,
        long_side=SIDE,
        score_threshold=MIN_CONFIDENCE,
        overrides={"box": {"pooler": pooler}, "mask": {"pooler": pooler}},
    )
    checkpoint = load(path, options)
    network = checkpoint.build()
    network.use_operators(OracleCrops())
    canvas = to_canvas([picture(*PHOTO_HW, 1)], checkpoint.spec.preprocess)
    images, image_hw = torch.from_numpy(canvas.images), torch.from_numpy(canvas.image_hw)
    windows = image_windows(image_hw, (SIDE, SIDE), "centred")
    with torch.no_grad():
        features = network.features(images, windows)
        outputs = network(images, image_hw)
    return Run(network, canvas, windows, features, outputs, unmolded(network, canvas, outputs))


def unmolded(network: MaskRCNN, canvas: Canvas, outputs: Outputs) -> Detections:
    count = int(outputs.counts[0])
    raw = RawDetections(
        outputs.boxes[0, :count].numpy(),
        outputs.scores[0, :count].numpy(),
        outputs.labels[0, :count].numpy(),
        outputs.masks[0, :count].numpy(),
        int(outputs.nms_open[0]),
        int(outputs.candidates_cut[0]),
    )
    height, width = (int(side) for side in canvas.image_hw[0])
    return from_raw(raw, network.spec, PHOTO_HW, (height, width), canvas.origin_yx[0])


def test_the_photo_is_placed_as_in_matterport(run: Run) -> None:
    molded = oracle.mold(PHOTO_HW, 192, SIDE)
    assert molded.hw == tuple(run.canvas.image_hw[0]) == (165, 256)
    assert molded.window == (45, 0, 210, 256)
    assert run.canvas.origin_yx == ((45, 0),)
    assert run.windows.origin_yx.tolist() == [[45, 0]]
    inside = run.windows.inside()[0]
    assert bool(inside[45:210].all())
    assert int(inside.sum()) == 165 * 256


def test_proposals(run: Run) -> None:
    with torch.no_grad():
        logits, deltas = run.network.rpn.head(run.features)
        boxes, valid, _ = run.network.rpn(run.features, run.windows)
    flat = [x[0].permute(1, 2, 0).reshape(-1, 1) for x in logits]
    theirs = [x[0].permute(1, 2, 0).reshape(-1, 4)[:, XY] for x in deltas]
    expected = oracle.proposals(
        torch.cat(flat)[:, 0].double().numpy(), torch.cat(theirs).double().numpy(), SIDE
    )
    assert len(expected) == int(valid.sum()) > 300
    ours = boxes[0][valid[0]].double().numpy()
    np.testing.assert_allclose(ours[:, XY], expected * (SIDE - 1), rtol=0, atol=1e-3)
    assert (expected == 0).any(), "some were clipped to the canvas"


def test_every_level_is_chosen_as_by_the_oracle(run: Run) -> None:
    with torch.no_grad():
        boxes, valid, _ = run.network.rpn(run.features, run.windows)
    boxes = boxes[0][valid[0]]
    spec = run.network.spec.box.pooler
    chosen = pyramid_levels(boxes, 4, 2, spec.canonical_size, 4, spec.inner_eps, spec.outer_eps)
    expected = [oracle.level(b, SIDE, CANONICAL) - 2 for b in normalized(boxes.double().numpy())]
    assert chosen.tolist() == expected
    assert set(expected) == {0, 1, 2, 3}


def test_detections(run: Run) -> None:
    network = run.network
    with torch.no_grad():
        rois, valid, _ = network.rpn(run.features, run.windows)
        pooled, _ = network.box_pool(run.features, rois, valid)
        logits, deltas = network.box_head(pooled)
    here = valid[0]
    probs = torch.softmax(logits[here].double(), dim=1).numpy()
    theirs = deltas[here].double().numpy().reshape(len(probs), -1, 4)[:, :, XY]
    window = oracle.normalize(np.array(oracle.mold(PHOTO_HW, 192, SIDE).window), (SIDE, SIDE))
    boxes = normalized(rois[0][here].double().numpy())
    expected = oracle.detections(boxes, probs, theirs, window, MIN_CONFIDENCE)
    count = int(run.outputs.counts[0])
    assert count == len(expected.scores) > 20
    assert run.outputs.labels[0, :count].tolist() == expected.classes.tolist()
    assert len(set(expected.classes.tolist())) >= 2
    np.testing.assert_allclose(run.outputs.scores[0, :count], expected.scores, rtol=0, atol=1e-5)
    ours = run.outputs.boxes[0, :count].double().numpy()
    np.testing.assert_allclose(ours[:, XY], expected.boxes * (SIDE - 1), rtol=0, atol=1e-3)
    assert int(run.outputs.candidates_cut[0]) == 0


def test_boxes_and_masks_on_the_photo(run: Run) -> None:
    count = int(run.outputs.counts[0])
    molded = oracle.mold(PHOTO_HW, 192, SIDE)
    boxes = normalized(run.outputs.boxes[0, :count].double().numpy())
    pixels, is_there = oracle.unmold(boxes, PHOTO_HW, molded, SIDE)
    pixels = pixels[is_there]
    assert len(run.detections) == len(pixels)
    np.testing.assert_array_equal(run.detections.boxes, pixels[:, XY])
    masks, pasted = run.outputs.masks[0, :count].numpy()[is_there], run.detections.masks
    covered = in_boxes = 0
    for row in range(0, len(pixels), 3):
        np.testing.assert_array_equal(pasted[row], oracle.paste(masks[row], pixels[row], PHOTO_HW))
        y1, x1, y2, x2 = pixels[row].tolist()
        covered, in_boxes = covered + int(pasted[row].sum()), in_boxes + (y2 - y1) * (x2 - x1)
    assert 0 < covered < in_boxes


def test_padding_is_taken_the_mean_from(run: Run) -> None:
    """Zeros before normalization: noise in the padding changes nothing, -mean is there."""
    noisy = torch.from_numpy(run.canvas.images).clone()
    noisy[:, :, :45] = 77.0
    with torch.no_grad():
        molded = run.network.normalise(noisy, run.windows)
    assert molded[0, :, 0, 0].tolist() == pytest.approx([-123.7, -116.8, -103.9])
    expected = noisy[0, :, 45:210].double() - torch.tensor([123.7, 116.8, 103.9])[:, None, None]
    # Two roundings below 256: of the mean and of the difference.
    torch.testing.assert_close(molded[0, :, 45:210].double(), expected, rtol=0, atol=2.0**-16)
