"""A Matterport checkpoint with its own pooling: the operator, and the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from export.tracing import GraphShape, trace
from model.checkpoint import Checkpoint, SpecOptions, load
from model.ops import OPAQUE
from model.placement import image_windows
from runtime.preprocessing.canvas import to_canvas
from tests.keras_matterport import Widths, random_weights, write_h5
from tests.lively import picture
from tests.model.test_matterport_pipeline import CANONICAL, SIDE, OracleCrops
from tests.oracles.pooling import float32_error

pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
PHOTOS_HW = ((150, 233), (90, 61))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("keras") / "mask_rcnn.h5"
    write_h5(path, random_weights(Widths(), seed=21))
    pooler = {"canonical_size": CANONICAL * (SIDE - 1) / SIDE}
    options = SpecOptions(
        short_side=192,
        long_side=SIDE,
        score_threshold=0.4,
        overrides={"box": {"pooler": pooler}, "mask": {"pooler": pooler}},
    )
    return load(path, options)


def test_the_operator_pools_as_the_oracle_does(checkpoint: Checkpoint) -> None:
    network = checkpoint.build()
    canvas = to_canvas([picture(*PHOTOS_HW[0], 1)], checkpoint.spec.preprocess)
    places = image_windows(torch.from_numpy(canvas.image_hw), (SIDE, SIDE), "centred")
    with torch.no_grad():
        features = network.features(torch.from_numpy(canvas.images), places)
        rois, valid, _ = network.rpn(features, places)
        spec = checkpoint.spec.box.pooler
        levels = [features[level] for level in spec.pooled_levels]
        pooled, _ = OPAQUE.pyramid_pool(levels, rois, valid, spec)
        expected, _ = OracleCrops().pyramid_pool(levels, rois, valid, spec)
    assert expected.std() > 0.05
    torch.testing.assert_close(pooled, expected, rtol=0, atol=float32_error(features))


def test_the_standard_graph_equals_the_eager_network(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    network = checkpoint.build()
    path = tmp_path / "model.onnx"
    ir.save(trace(network, GraphShape()), path)
    photos = [picture(*hw, seed) for seed, hw in enumerate(PHOTOS_HW)]
    canvas = to_canvas(photos, checkpoint.spec.preprocess)
    with torch.no_grad():
        eager = network(torch.from_numpy(canvas.images), torch.from_numpy(canvas.image_hw))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feed = {"images": canvas.images, "image_hw": canvas.image_hw}
    outputs = dict(zip(names, session.run(names, feed), strict=True))
    expected = {n: t.numpy() for n, t in eager._asdict().items() if t is not None}
    assert expected["counts"].min() > 20
    for name in ("counts", "labels", "nms_open", "candidates_cut", "samples_cut"):
        np.testing.assert_array_equal(outputs[name], expected[name], err_msg=name)
    # The sums of some thirty layers in another order, of which a box's sides take 2e-4.
    for name, limit in (("scores", 1e-4), ("boxes", 5e-2), ("masks", 1e-3)):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=0, atol=limit, err_msg=name)
