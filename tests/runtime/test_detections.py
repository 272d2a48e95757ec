"""From raw network output to detections in the original image."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from model.errors import ArtifactError
from model.spec import ClassSpec, MaskHeadSpec, ModelSpec, ResNetSpec
from runtime.detections import Detections
from runtime.masks import rle
from runtime.postprocessing.from_raw import RawDetections, from_raw
from runtime.selection import Selection

SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_resnet50_fpn",
    body=ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048)),
    classes=ClassSpec(("background", "cat", "dog", "cow")),
    mask=MaskHeadSpec(),
)
FLOAT_SPEC = replace(
    SPEC,
    box=replace(SPEC.box, to_image="clip"),
    mask=MaskHeadSpec(paste="float", threshold_inclusive=True),
)
IMAGE_HW, RESIZED_HW = (375, 500), (320, 426)


def raw(rows: int = 5, side: int = 28) -> RawDetections:
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 200, (rows, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(5, 120, (rows, 2))), axis=1)
    return RawDetections(
        boxes=boxes.astype(np.float32),
        scores=np.sort(rng.random(rows, np.float32))[::-1].copy(),
        labels=rng.integers(1, 4, rows).astype(np.int32),
        masks=rng.random((rows, side, side), np.float32),
        nms_open=0,
        candidates_cut=0,
    )


def detections(rows: int = 5) -> Detections:
    return from_raw(raw(rows), SPEC, IMAGE_HW, RESIZED_HW)


@pytest.mark.parametrize(
    ("image_hw", "resized_hw"),
    [((375, 500), (320, 426)), ((4000, 3000), (1066, 800)), ((1, 1), (800, 800))],
    ids=["grown", "shrunk", "one-pixel"],
)
def test_boxes_are_resized_as_torchvision_does(
    image_hw: tuple[int, int], resized_hw: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    transform = pytest.importorskip("torchvision.models.detection.transform")
    network = raw(200)
    expected = transform.resize_boxes(torch.from_numpy(network.boxes), resized_hw, image_hw)
    result = from_raw(network, SPEC, image_hw, resized_hw)
    np.testing.assert_array_equal(result.boxes, expected.numpy())
    assert result.boxes.dtype == np.float32


def test_rows_of_the_network() -> None:
    network = raw()
    result = from_raw(network, SPEC, IMAGE_HW, RESIZED_HW)
    np.testing.assert_array_equal(result.scores, network.scores)
    np.testing.assert_array_equal(result.labels, network.labels)
    assert result.labels.dtype == np.int64
    assert result.names == tuple(SPEC.classes.names[label] for label in network.labels)
    assert result.class_names == ("cat", "dog", "cow")
    assert len(result) == 5
    head = MaskHeadSpec(paste="float", threshold=0.3, threshold_inclusive=True)
    result = from_raw(raw(), replace(SPEC, mask=head), IMAGE_HW, RESIZED_HW)
    assert (result.paste, result.mask_threshold, result.mask_threshold_inclusive) == (
        "float",
        0.3,
        True,
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["boxes", "scores", "masks"])
@pytest.mark.parametrize("spec", [SPEC, FLOAT_SPEC], ids=["integer", "float"])
def test_row_with_nan_or_infinity_is_dropped_and_counted(
    bad: float, field: str, spec: ModelSpec
) -> None:
    network = raw()
    getattr(network, field).reshape(5, -1)[3, 0] = bad
    result = from_raw(network, spec, IMAGE_HW, RESIZED_HW)
    assert (len(result), result.dropped) == (4, 1)
    np.testing.assert_array_equal(result.scores, np.delete(network.scores, 3))


def test_numbers_beyond_their_range() -> None:
    network = raw()
    network.boxes[0, 2] = 3.3e38
    assert from_raw(network, SPEC, (3750, 5000), RESIZED_HW).dropped == 1
    network = raw()
    network.scores[0] = np.float32(1.0005)
    assert from_raw(network, SPEC, IMAGE_HW, RESIZED_HW).scores[0] == np.float32(1.0005)


def test_float_rule_clips_and_removes_empty_boxes() -> None:
    network = raw(4)
    network.boxes[:] = [
        [-20, -30, 100, 100],
        [400, 300, 900, 900],
        [50, 50, 50, 90],
        [430, 10, 500, 90],
    ]
    result = from_raw(network, FLOAT_SPEC, RESIZED_HW, RESIZED_HW)
    np.testing.assert_array_equal(result.boxes, [[0, 0, 100, 100], [400, 300, 426, 320]])
    assert result.dropped == 0
    kept = from_raw(network, SPEC, RESIZED_HW, RESIZED_HW)
    np.testing.assert_array_equal(kept.boxes, network.boxes)


def test_exact_needs_all_certificates(subtests: pytest.Subtests) -> None:
    for certificates, exact in [
        ({}, True),
        ({"nms_open": 3}, False),
        ({"candidates_cut": 1}, False),
        ({"samples_cut": 2}, False),
    ]:
        with subtests.test(certificates=certificates):
            network = replace(raw(), **certificates)
            assert from_raw(network, SPEC, IMAGE_HW, RESIZED_HW).exact is exact


@pytest.mark.parametrize("label", [4, 0, -1, 2**31 - 1])
def test_label_without_a_name_is_refused(label: int) -> None:
    network = raw()
    network.labels[2] = label
    with pytest.raises(ArtifactError, match=f"expected labels 1 to 3, got {label}; .* again"):
        from_raw(network, SPEC, IMAGE_HW, RESIZED_HW)


@pytest.mark.parametrize("spec", [SPEC, FLOAT_SPEC], ids=["integer", "float"])
def test_masks_crops_and_rle_hold_the_same_pixels(spec: ModelSpec) -> None:
    result = from_raw(raw(), spec, IMAGE_HW, RESIZED_HW)
    masks, crops, texts = result.masks, result.crops(), result.rle()
    assert masks.shape == (5, 375, 500)
    assert masks.dtype == np.bool_
    for mask, crop, text in zip(masks, crops, texts, strict=True):
        np.testing.assert_array_equal(rle.decode(text), mask)
        assert np.count_nonzero(crop.columns) == rle.area(text) == mask.sum() > 0


def test_results_without_masks_or_rows() -> None:
    result = from_raw(replace(raw(), masks=None), replace(SPEC, mask=None), IMAGE_HW, RESIZED_HW)
    assert result.masks is None
    assert result.crops() == []
    assert result.rle() == []
    assert len(result) == 5
    result = detections(0)
    assert len(result) == 0
    assert result.masks.shape == (0, 375, 500)
    assert result.rle() == []


def test_rows_are_selected_and_taken() -> None:
    result = detections()
    limit = float(result.scores[2])
    part = result.select(Selection(score_threshold=limit))
    assert part.names == result.names[:3]
    np.testing.assert_array_equal(part.scores, result.scores[:3])
    assert part.mask_probs is not None
    np.testing.assert_array_equal(part.mask_probs, result.mask_probs[:3])
    assert len(result) == 5
    assert len(result.select(Selection(score_threshold=1.0))) == 0
    result = detections()
    part = result.take([3, 0, 3])
    assert part.names == tuple(result.names[row] for row in (3, 0, 3))
    for name in ("boxes", "scores", "labels", "mask_probs", "dataset_ids"):
        np.testing.assert_array_equal(getattr(part, name), getattr(result, name)[[3, 0, 3]])
    assert len(result.take([])) == 0


def test_contradictory_fields_are_refused(subtests: pytest.Subtests) -> None:
    for change, message in [
        ({"boxes": np.zeros((4, 4), np.float32)}, "expected boxes as float32"),
        ({"boxes": np.zeros((5, 4))}, "got float64"),
        ({"boxes": np.zeros((5, 5), np.float32)}, r"got float32 \[5, 5\]"),
        ({"scores": np.zeros((5, 1), np.float32)}, "expected scores"),
        ({"labels": np.ones(5, np.int32)}, "expected labels as int64"),
        ({"names": ("cat",) * 4}, "expected boxes as float32"),
        ({"mask_probs": np.zeros((5, 28, 14), np.float32)}, "expected mask_probs"),
        ({"mask_probs": np.zeros((), np.float32)}, "expected mask_probs"),
        ({"scores": np.full(5, np.nan, np.float32)}, "expected finite scores"),
        ({"mask_probs": np.zeros((5, 0, 0), np.float32)}, r"mask_probs as float32 \[5, 1, 1\]"),
        ({"image_hw": (0, 10)}, "image_hw as two whole numbers from 1"),
        ({"image_hw": (10.5, 10)}, "image_hw as two whole numbers from 1"),
        ({"image_hw": [10, 10]}, "image_hw as two whole numbers from 1"),
        ({"image_hw": 10}, "image_hw as two whole numbers from 1"),
        ({"class_names": ("horse",)}, "names out of class_names, got '(cat|dog|cow)'"),
        ({"mask_threshold": 1.0}, "between 0 and 1"),
        ({"boxes": [[0.0] * 4] * 5}, "expected boxes as an array, got list"),
        ({"scores": np.full(5, 1.5, np.float32)}, "expected scores from 0 to 1, got 1.5"),
        ({"scores": np.full(5, -0.5, np.float32)}, "expected scores from 0 to 1, got -0.5"),
        ({"mask_probs": np.full((5, 28, 28), 7, np.float32)}, "expected mask_probs from 0 to 1"),
        ({"labels": np.zeros(5, np.int64)}, "expected labels from 1, got 0"),
        ({"labels": -np.ones(5, np.int64), "first_class": 0}, "expected labels from 0, got -1"),
        ({"first_class": 2}, "first_class as 0 or 1, got 2"),
        ({"dataset_ids": np.ones(4, np.int64)}, "expected dataset_ids as int64"),
        ({"dataset_ids": np.ones(5, np.int32)}, "got int32"),
        ({"paste": "nearest"}, "expected paste as one of integer, float, resize, got 'nearest'"),
        ({"dropped": -1}, "expected dropped as 0 or more, got -1"),
        ({"image_hw": (10,)}, "image_hw as two whole numbers from 1"),
    ]:
        with subtests.test(message), pytest.raises(ValueError, match=message):
            replace(detections(), **change)


@pytest.mark.parametrize(
    ("spec", "ids"),
    [
        (SPEC, [3, 1, 2]),
        (replace(SPEC, classes=replace(SPEC.classes, dataset_ids=(0, 17, 18, 21))), [21, 17, 18]),
    ],
    ids=["own", "the-data-sets"],
)
def test_rows_have_dataset_ids(spec: ModelSpec, ids: list[int]) -> None:
    network = raw(3)
    network.labels[:] = (3, 1, 2)
    result = from_raw(network, spec, IMAGE_HW, RESIZED_HW)
    assert result.dataset_ids.tolist() == ids
    assert result.dataset_ids.dtype == np.int64
    best = result.select(Selection(score_threshold=float(result.scores[1])))
    assert best.dataset_ids.tolist() == ids[:2]
    assert result.first_class == 1


def test_dataset_ids_and_label_zero() -> None:
    result = detections()
    plain = Detections(
        result.boxes, result.scores, result.labels, result.names, None, result.image_hw
    )
    np.testing.assert_array_equal(plain.dataset_ids, result.labels)
    assert plain.first_class == 0
    spec = replace(SPEC, box=replace(SPEC.box, background="last"))
    network = raw(2)
    network.labels[:] = (0, 3)
    result = from_raw(network, spec, IMAGE_HW, RESIZED_HW)
    assert (result.first_class, result.labels.tolist()) == (0, [0, 3])
    assert result.class_names == SPEC.classes.names


@pytest.mark.parametrize("field", ["scores", "masks"])
@pytest.mark.parametrize("value", [-3.0, 40.0])
def test_network_output_that_is_no_probability_is_refused(field: str, value: float) -> None:
    network = raw()
    getattr(network, field).reshape(5, -1)[2, 0] = value
    with pytest.raises(ArtifactError, match=r"network output: .* from 0 to 1, .* export the model"):
        from_raw(network, SPEC, IMAGE_HW, RESIZED_HW)


@pytest.mark.parametrize("spec", [SPEC, FLOAT_SPEC], ids=["integer", "float"])
def test_polygons_are_of_each_mask(spec: ModelSpec) -> None:
    result = from_raw(raw(), spec, IMAGE_HW, RESIZED_HW)
    for mask, parts in zip(result.masks, result.polygons(), strict=True):
        assert sum(part.area_px for part in parts) == mask.sum()
    assert replace(result, mask_probs=None).polygons() == []


def test_import_needs_only_numpy_and_pillow() -> None:
    code = (
        "import sys, runtime.detections, runtime.drawing.overlay, runtime.selection;"
        "import runtime.formats.result_writer;"
        "heavy = {'torch', 'torchvision', 'cv2', 'pycocotools', 'matplotlib', 'onnx', 'scipy',"
        " 'supervision', 'yaml'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
