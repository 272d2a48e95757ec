"""Matterport's `.h5` weights: names, layout, folding, spec and what is assumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export.tracing import GraphShape
from model.checkpoint import Checkpoint, SpecOptions, load
from model.errors import CheckpointError, SpecError, UsageError
from model.families.dialect import Source
from model.families.matterport.dialect import DIALECT
from model.files.weights_file import read_weights
from model.mask_rcnn import MaskRCNN
from model.placement import image_windows
from tests.keras_forward import KerasNetwork
from tests.keras_matterport import (
    FULL,
    Weights,
    Widths,
    keras_path,
    random_weights,
    shapes,
    write_h5,
)

pytest.importorskip("h5py", reason="needs h5py, of the extra h5")
SIDE = 256
OPTIONS = SpecOptions(short_side=192, long_side=SIDE)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(Widths())


@pytest.fixture(scope="module")
def checkpoint(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("keras") / "mask_rcnn.h5"
    write_h5(path, weights)
    return load(path, OPTIONS)


def test_the_names_of_the_coco_file_map_completely() -> None:
    """ResNet-101, 81 classes; on the meta device, their number is in Keras' summary."""
    with torch.device("meta"):
        given = {keras_path(n).removesuffix(":0"): torch.empty(s) for n, s in shapes(FULL).items()}
    assert sum(tensor.numel() for tensor in given.values()) == 64_158_584
    prepared = DIALECT.prepare(given, Path("mask_rcnn_coco.h5"))
    spec = DIALECT.read(prepared, Source(Path("mask_rcnn_coco.h5"), "")).spec
    assert spec.architecture == "maskrcnn_resnet101_fpn"
    assert spec.classes.names[:3] == ("__background__", "person", "bicycle")
    assert (len(spec.classes.names), spec.classes.dataset_id(80)) == (81, 90)
    with torch.device("meta"):
        state = MaskRCNN(spec).state_dict()
    expected = {
        DIALECT.original(name, spec): tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert {name: tuple(tensor.shape) for name, tensor in prepared.items()} == expected


def test_the_network_computes_what_keras_layers_do(
    weights: Weights, checkpoint: Checkpoint
) -> None:
    keras, network = KerasNetwork(weights), checkpoint.build().double()
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, SIDE, SIDE, generator=rng, dtype=torch.float64) * 255
    windows = image_windows(torch.tensor([[192.0, 255.0]]), (SIDE, SIDE), "centred")
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[32:224, 0:255] = True
    mean = torch.tensor([123.7, 116.8, 103.9])[:, None, None]
    expected = keras.features(torch.where(inside, image, 0.0) - mean)
    features = network.features(image, windows)
    for ours, theirs in zip(features, expected, strict=True):
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    logits, deltas = network.rpn.head(expected[1:2])
    foreground, theirs = keras.propose(expected[1])
    ours = torch.sigmoid(logits[0]).permute(0, 2, 3, 1).reshape(-1)
    torch.testing.assert_close(ours, foreground, rtol=1e-5, atol=1e-6)
    x_first = deltas[0].permute(0, 2, 3, 1).reshape(-1, 4)
    torch.testing.assert_close(x_first[:, [1, 0, 3, 2]], theirs, rtol=1e-5, atol=1e-5)


def test_the_heads_compute_what_keras_layers_do(weights: Weights, checkpoint: Checkpoint) -> None:
    keras, network = KerasNetwork(weights), checkpoint.build().double()
    rng = torch.Generator().manual_seed(1)
    pooled = torch.randn(6, 8, 7, 7, generator=rng, dtype=torch.float64)
    logits, deltas = network.box_head(pooled)
    probs, theirs = keras.classify(pooled)
    torch.testing.assert_close(torch.softmax(logits, dim=1), probs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        deltas.reshape(6, -1, 4)[:, :, [1, 0, 3, 2]], theirs, rtol=1e-5, atol=1e-5
    )
    pooled = torch.randn(6, 8, 14, 14, generator=rng, dtype=torch.float64)
    channel = torch.tensor([0, 1, 2, 3, 4, 1])
    assert network.mask_head is not None
    masks = network.mask_head(pooled, channel)
    expected = keras.masks(pooled)[torch.arange(6), channel]
    assert expected.std() > 0.05
    torch.testing.assert_close(masks.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_whole_model_holds_the_same_weights(
    weights: Weights, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    write_h5(tmp_path / "model.h5", weights, whole_model=True)
    again = load(tmp_path / "model.h5", OPTIONS)
    assert again.spec == checkpoint.spec
    assert again.tensors.keys() == checkpoint.tensors.keys()
    assert all(torch.equal(again.tensors[n], t) for n, t in checkpoint.tensors.items())


def test_groups_and_numbers_of_layers_do_not_matter(weights: Weights) -> None:
    """Keras numbers the layers of a nested model that is built twice; others nest everything."""
    plain = DIALECT.prepare({n: torch.from_numpy(w) for n, w in weights.items()}, Path("a.h5"))
    odd = {}
    for name, value in weights.items():
        layer, variable = name.split("/")
        path = f"rpn_model/{layer}_1/{variable}:0" if layer.startswith("rpn") else f"net/{name}"
        odd[path] = torch.from_numpy(value)
    odd["anchors/Variable"] = torch.zeros(1, 9, 4)
    prepared = DIALECT.prepare(odd, Path("b.h5"))
    assert prepared.keys() == plain.keys()
    assert all(torch.equal(prepared[n], plain[n]) for n in plain)


def test_half_and_double_precision_are_read(weights: Weights, tmp_path: Path) -> None:
    mixed = {n: w.astype((np.float16, ">f8")[i % 2]) for i, (n, w) in enumerate(weights.items())}
    write_h5(tmp_path / "mixed.h5", mixed)
    tensors = read_weights(tmp_path / "mixed.h5").tensors
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    name = list(weights)[1]
    read = tensors[keras_path(name).removesuffix(":0")]
    np.testing.assert_array_equal(read.numpy(), weights[name])


def test_every_assumption_is_named(checkpoint: Checkpoint) -> None:
    assumed = "\n".join(map(str, checkpoint.assumptions))
    for words in (
        "box.score_threshold 0.7", "box.nms_iou 0.3", "box.detections 100", "--names",
        "preprocess.mean 123.7/116.8/103.9", "rpn.pre_nms 6000", "box.box_weights 10/10/5/5",
        "anchors.sizes 32 | 64 | 128 | 256 | 512", "anchors.ratios 5x 2/1/0.5",
        "mask.pooler.output_size 14",
    ):  # fmt: skip
        assert words in assumed
    assert "short_side" not in assumed
    assert "IMAGE_RESIZE_MODE square" in checkpoint.notes[0]


def test_the_level_rule_follows_the_canvas(checkpoint: Checkpoint, weights: Weights) -> None:
    """A box's side is its fraction of the canvas less one pixel, times the canvas."""
    mask = checkpoint.spec.mask
    for pooler in (checkpoint.spec.box.pooler, mask.pooler):
        assert pooler.canonical_size == pytest.approx(224 * 255 / 256, rel=1e-12)
    overrides = {"box": {"pooler": {"canonical_size": 100.0}}}
    custom = load(checkpoint.path, SpecOptions(short_side=192, long_side=SIDE, overrides=overrides))
    assert custom.spec.box.pooler.canonical_size == 100.0
    default = load(checkpoint.path).spec
    assert default.preprocess.long_side == 1024
    assert default.box.pooler.canonical_size == 224 * 1023 / 1024


def test_other_anchors_are_required(tmp_path: Path) -> None:
    path = tmp_path / "anchors.h5"
    write_h5(path, random_weights(Widths(anchors=2)))
    with pytest.raises(CheckpointError, match=r"anchors\.sizes"):
        load(path, OPTIONS)
    anchors = {"sizes": [[s] for s in (8, 16, 32, 64, 128)], "ratios": [[1.0, 2.0]] * 5}
    options = SpecOptions(short_side=192, long_side=SIDE, overrides={"anchors": anchors})
    assert load(path, options).spec.anchors.per_cell == 2


def test_options_that_keras_does_not_have(checkpoint: Checkpoint) -> None:
    with pytest.raises((SpecError, UsageError), match="--long-side"):
        load(checkpoint.path, SpecOptions(long_side=1000))
    with pytest.raises(UsageError, match="--norm-eps"):
        load(checkpoint.path, SpecOptions(norm_eps=1e-5))
    preprocess = checkpoint.spec.preprocess
    GraphShape(1, SIDE, SIDE).check(preprocess)
    GraphShape().check(preprocess)
    with pytest.raises(UsageError, match="256x256"):
        GraphShape(1, 192, SIDE).check(preprocess)


def _without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {n: w for n, w in weights.items() if n != name}


def _reshaped(name: str, shape: tuple[int, ...]) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: np.ones(shape, np.float32)}


def test_what_is_wrong_is_named(
    weights: Weights, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for change, message in [
        (_without("res3a_branch2b/kernel"), "res3a_branch2b/kernel"),
        (_without("bn_conv1/gamma"), "bn_conv1/gamma"),
        (_without("mrcnn_class_bn1/beta"), "mrcnn_class_conv"),
        (_reshaped("conv1/bias", (3,)), "shapes"),
        (_reshaped("rpn_class_raw/bias", (5,)), "shapes"),
        (_reshaped("mrcnn_bbox_fc/bias", (7,)), "shapes"),
        (_reshaped("fpn_p2/kernel", (3, 3, 8)), "fpn_p2/kernel"),
        (_reshaped("extra/kernel", (2, 2)), "extra/kernel"),
    ]:
        with subtests.test(message):
            path = tmp_path / "wrong.h5"
            write_h5(path, change(weights))
            with pytest.raises(CheckpointError, match=message) as caught:
                load(path, OPTIONS)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)
