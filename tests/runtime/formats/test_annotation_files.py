"""Annotation files: their pixels, and the form that their readers expect."""

from __future__ import annotations

import base64
import io
import json
import sys
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.errors import MissingDependencyError, UsageError
from model.spec import ClassSpec, MaskHeadSpec, ModelSpec, ResNetSpec
from runtime.detections import Detections
from runtime.formats import crops, jsonl, labelme, rle, yolo
from runtime.formats.names import file_stem

SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_resnet50_fpn",
    body=ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048)),
    classes=ClassSpec(("background", "cat", "dog", "yes: #1\n")),
    mask=MaskHeadSpec(),
)
IMAGE_HW = (60, 90)


def example(
    rows: int = 8, masks: bool = True, keypoints: bool = False, seed: int = 3
) -> Detections:
    """Noisy masks with parts and holes, some of them over the border."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-15, 50, (rows, 2))
    labels = rng.integers(1, 4, rows)
    smooth = rng.random((rows, 7, 7), np.float32).repeat(2, axis=1).repeat(2, axis=2)
    return Detections(
        boxes=np.concatenate((corner, corner + rng.uniform(8, 40, (rows, 2))), axis=1).astype("f4"),
        scores=rng.random(rows, np.float32),
        labels=labels,
        names=tuple(SPEC.classes.names[label] for label in labels),
        mask_probs=smooth if masks else None,
        image_hw=IMAGE_HW,
        keypoints=rng.uniform(0, 60, (rows, 2, 3)).astype("f4") if keypoints else None,
        keypoint_names=("head", "tail") if keypoints else (),
        first_class=1,
        dataset_ids=labels * 10,
    )


def dense(detections: Detections) -> NDArray[np.bool_]:
    assert detections.masks is not None
    return detections.masks


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (*IMAGE_HW, 3), np.uint8)


def off_image(detections: Detections, row: int) -> Detections:
    boxes = detections.boxes.copy()
    boxes[row] = (200, 200, 240, 240)
    return replace(detections, boxes=boxes)


def numbers(line: str) -> tuple[int, NDArray[np.float64]]:
    label, *values = line.split(" ")
    return int(label), np.array(values, np.float64)


def read_by_supervision(lines: list[str], image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    reader = pytest.importorskip("supervision.dataset.formats.yolo")
    masks: NDArray[np.bool_] = reader.yolo_annotations_to_detections(
        lines, image_hw[::-1], with_masks=True
    ).mask
    return masks


def test_supervision_reads_the_masks_pixels_from_yolo_lines() -> None:
    ring = np.pad(np.zeros((1, 3, 3), np.float32), ((0, 0), (1, 1), (1, 1)), constant_values=1)
    few_cells = np.random.default_rng(6).random((12, 5, 5), np.float32) ** 0.6
    probs = np.concatenate((few_cells, ring.repeat(4, axis=0)))
    detections = replace(example(16), mask_probs=probs)
    lines = detections.to_yolo_seg()
    visible = [row for row, mask in enumerate(dense(detections)) if mask.any()]
    assert len(lines) == len(visible)
    one_piece = with_holes = 0
    for line, row, read in zip(lines, visible, read_by_supervision(lines, IMAGE_HW), strict=True):
        label, values = numbers(line)
        assert label == detections.labels[row] - 1
        assert (values > 0).all()
        assert (values < 1).all()
        written = dense(detections)[row]
        assert read[written].all()
        parts = detections.polygons()[row]
        if len(parts) == 1:
            one_piece += 1
            with_holes += bool(parts[0].holes)
            np.testing.assert_array_equal(read, written)
    assert one_piece - with_holes > 3
    assert with_holes > 3
    assert one_piece < len(visible)


def test_an_outline_with_a_diagonal_is_too_long_for_added_vertices() -> None:
    side = 60
    noise = np.random.default_rng(7).random((side, side)) < 0.6
    far = np.zeros((side, side))
    far[0, 0] = far[20, 20] = 1
    masks = np.stack((np.eye(side), noise, far)).astype(np.float32)
    detections = Detections(
        boxes=np.array([[0, 0, side, side]] * 3, np.float32),
        scores=np.ones(3, np.float32),
        labels=np.zeros(3, np.int64),
        names=("cat",) * 3,
        mask_probs=masks,
        image_hw=(side, side),
        paste="float",
    )
    # Ultralytics adds vertices up to 1000, or one more than the longest outline has.
    counts = [len(numbers(line)[1]) // 2 for line in detections.to_yolo_seg()]
    assert counts[0] == counts[1] > 1000
    assert counts[2] < 10  # pieces are not read exactly, and files stay small
    assert len(numbers(detections.take([2]).to_yolo_seg()[0])[1]) == 2 * 1000
    (line,) = detections.take([0]).to_yolo_seg()
    assert len(numbers(line)[1]) == 2 * 1000
    (read,) = read_by_supervision([line], (side, side))
    np.testing.assert_array_equal(read, dense(detections)[0])


@pytest.mark.parametrize("image_hw", [(1, 1), (9, 10), (999, 1000), (3, 9_999), (70_000, 2)])
def test_yolo_vertices_stay_in_their_pixels_at_every_size(image_hw: tuple[int, int]) -> None:
    height, width = image_hw
    size = min(height, width, 8)
    rng = np.random.default_rng(5)
    corner = np.stack((rng.integers(0, width, 20), rng.integers(0, height, 20)), axis=1)
    detections = Detections(
        boxes=np.concatenate((corner, corner + size), axis=1).astype("f4"),
        scores=np.ones(20, np.float32),
        labels=np.zeros(20, np.int64),
        names=("cat",) * 20,
        mask_probs=np.ones((20, 28, 28), np.float32),
        image_hw=image_hw,
    )
    for line, mask in zip(detections.to_yolo_seg(), dense(detections), strict=True):
        # In the precision of the readers; one truncates, another rounds.
        vertices = numbers(line)[1].astype(np.float32).reshape(-1, 2) * np.float32((width, height))
        pixels = np.trunc(vertices)
        np.testing.assert_array_equal(pixels, np.round(vertices))
        np.testing.assert_allclose(vertices, pixels + 0.25, atol=0.01)
        y, x = np.nonzero(mask)
        assert {*pixels[:, 0]} == {x.min(), x.max()}
        assert {*pixels[:, 1]} == {y.min(), y.max()}


@pytest.mark.parametrize("first_class", [0, 1])
def test_yolo_classes_count_from_the_first_foreground_class(first_class: int) -> None:
    detections = replace(example(), first_class=first_class)
    labels = [numbers(line)[0] for line in detections.to_yolo_seg()]
    assert labels == (detections.labels - first_class).tolist()


def test_yolo_of_a_box_only_model_is_boxes_in_the_image() -> None:
    detections = off_image(example(6, masks=False), 2)
    lines = detections.to_yolo_seg()
    assert len(lines) == 5
    inside = detections.take([0, 1, 3, 4, 5])
    for line, box, label in zip(lines, inside.boxes, inside.labels, strict=True):
        number, (x, y, width, height) = numbers(line)
        assert number == label - 1
        expected = box.clip(0, np.array([90, 60, 90, 60]))
        corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        np.testing.assert_allclose(corners * (90, 60, 90, 60), expected, atol=1e-4)


def test_a_row_without_pixels_has_no_yolo_line_and_no_labelme_shape() -> None:
    detections = off_image(example(3), 1)
    assert len(detections.to_yolo_seg()) == 2
    for mask_shape in labelme.MASK_SHAPES:
        shapes = detections.to_labelme("a.jpg", mask_shape)["shapes"]
        assert {shape["group_id"] for shape in shapes} == {0, 2}


def test_yolo_files_name_the_classes(tmp_path: Path) -> None:
    yolo.write(tmp_path / "a.txt", example())
    yolo.write(tmp_path / "b.txt", example(0))
    yolo.write_names(tmp_path, SPEC)
    assert (tmp_path / "a.txt").read_text().splitlines() == example().to_yolo_seg()
    assert (tmp_path / "b.txt").read_bytes() == b""
    names = ["cat", "dog", "yes: #1"]
    assert (tmp_path / "classes.txt").read_text().splitlines() == names
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "nc": 3,
        "names": dict(enumerate(names)),
    }
    classes = ClassSpec(("cat", "dog"))
    last = replace(SPEC, classes=classes, box=replace(SPEC.box, background="last"))
    assert yolo.class_names(last) == ("cat", "dog")


def read_by_labelme(shape: dict[str, Any]) -> NDArray[np.bool_]:
    """As `shapes_to_label` of labelme 7.9: Pillow paints polygons, mask shapes are pasted."""
    if shape["shape_type"] == "polygon":
        image = Image.new("L", IMAGE_HW[::-1])
        points = [tuple(point) for point in shape["points"]]
        ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
        return np.asarray(image) > 0
    mask = np.zeros(IMAGE_HW, np.bool_)
    (x0, y0), (x1, y1) = np.array(shape["points"]).astype(int)
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as png:
        mask[y0 : y1 + 1, x0 : x1 + 1] = np.asarray(png).astype(np.bool_)
    return mask


@pytest.mark.parametrize("mask_shape", labelme.MASK_SHAPES)
def test_labelme_reads_the_masks_pixels(mask_shape: labelme.MaskShape) -> None:
    detections = example(30)
    document = json.loads(json.dumps(detections.to_labelme(Path("photos/a.jpg"), mask_shape)))
    assert set(document) == {
        "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth",
    }  # fmt: skip
    assert (document["imagePath"], document["imageData"]) == ("photos/a.jpg", None)
    assert (document["imageHeight"], document["imageWidth"]) == IMAGE_HW
    read: dict[int, list[NDArray[np.bool_]]] = {row: [] for row in range(30)}
    for shape in document["shapes"]:
        assert set(shape) == {
            "label", "points", "group_id", "description", "shape_type", "flags", "mask",
        }  # fmt: skip
        row = shape["group_id"]
        assert shape["shape_type"] == mask_shape
        assert (shape["mask"] is None) == (mask_shape == "polygon")
        assert shape["label"] == detections.names[row]
        assert shape["description"] == f"score {detections.scores[row]:.4f}"
        read[row].append(read_by_labelme(shape))
    for row, mask in enumerate(dense(detections)):
        np.testing.assert_array_equal(np.any([np.zeros_like(mask), *read[row]], axis=0), mask)
        parts = len(detections.polygons()[row])
        assert len(read[row]) == (parts if mask_shape == "polygon" else min(parts, 1))
    assert any(len(parts) > 1 for parts in detections.polygons())


def test_an_unknown_labelme_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a shape of polygon, mask, got circle"):
        example(1).to_labelme("a.jpg", "circle")  # type: ignore[arg-type]


def test_labelme_of_boxes_and_keypoints(tmp_path: Path) -> None:
    detections = off_image(example(3, masks=False, keypoints=True), 1)
    shapes = detections.to_labelme("a.jpg")["shapes"]
    types = [(shape["shape_type"], shape["group_id"]) for shape in shapes]
    points = [("point", 0), ("point", 0), ("point", 1), ("point", 1), ("point", 2), ("point", 2)]
    assert sorted(types) == sorted([("rectangle", 0), ("rectangle", 2), *points])
    first = [shape for shape in shapes if shape["shape_type"] == "point"][:2]
    assert [shape["label"] for shape in first] == ["head", "tail"]
    expected = detections.keypoints[0, :, :2]
    np.testing.assert_array_equal([shape["points"][0] for shape in first], expected)
    corners = next(
        s["points"] for s in shapes if (s["shape_type"], s["group_id"]) == ("rectangle", 2)
    )
    clipped = detections.boxes[2].clip(0, [90, 60, 90, 60])
    np.testing.assert_array_equal(np.array(corners).ravel(), clipped)
    labelme.write(tmp_path / "a.json", example(0), "a.jpg")
    assert json.loads((tmp_path / "a.json").read_text())["shapes"] == []


def test_a_class_name_with_a_lone_surrogate_is_written(tmp_path: Path) -> None:
    names = (*SPEC.classes.names[:-1], "odd \ud800")
    spec = replace(SPEC, classes=replace(SPEC.classes, names=names))
    yolo.write_names(tmp_path, spec)
    assert (tmp_path / "classes.txt").read_text("utf-8").splitlines()[-1] == "odd \\ud800"
    odd = replace(example(), names=(names[-1],) * len(example()))
    crops.write(tmp_path / "a", picture(), odd)
    labelme.write(tmp_path / "a.json", odd, "a.png")
    with jsonl.Writer(tmp_path / "a.jsonl") as writer:
        writer.add("a", odd)
    rle.write_from_jsonl(tmp_path / "rle.json", tmp_path / "a.jsonl")
    assert len(list((tmp_path / "a").iterdir())) == len(odd)


@pytest.mark.parametrize(
    "name",
    ["../a", "a/b", "a\\b", "C:x", "", ".", "..", ".hidden", "tab\t", "nul\x00", "end.",
     "é" * 200, "\udcff", "a" * 151,
     "con", "NUL", "aux.txt", "COM1", "lpt².a.b", "prn .x", "CONIN$"],
)  # fmt: skip
def test_awkward_names_become_one_path_component(name: str, tmp_path: Path) -> None:
    stem = file_stem(name)
    assert stem == file_stem(name) != name
    assert Path(stem).name == stem
    assert not PureWindowsPath(stem).is_reserved()
    assert len(stem.encode()) < 170
    (tmp_path / f"{stem}.txt").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == [f"{stem}.txt"]


def test_different_names_stay_different_and_valid_ones_unchanged() -> None:
    assert file_stem("a/b") != file_stem("a\\b") != file_stem("a_b")
    names = "000000123", "traffic light", "фото 1", "clip.mp4#000123", "console", "com", "com10"
    for name in (*names, "a" * 150):
        assert file_stem(name) == name


def test_supervision_has_every_row(recwarn: pytest.WarningsRecorder) -> None:
    supervision = pytest.importorskip("supervision")
    detections = example(keypoints=True)
    theirs = detections.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert len(theirs) == len(detections)
    np.testing.assert_array_equal(theirs.xyxy, detections.boxes)
    np.testing.assert_array_equal(theirs.confidence, detections.scores)
    np.testing.assert_array_equal(theirs.class_id, detections.labels)
    np.testing.assert_array_equal(theirs.mask, dense(detections))
    assert theirs["class_name"].tolist() == list(detections.names)
    assert theirs["category_id"].tolist() == detections.dataset_ids.tolist()
    np.testing.assert_array_equal(theirs["keypoints"], detections.keypoints)
    part = theirs[theirs.confidence > 0.5]
    assert len(part) == (detections.scores > 0.5).sum() == len(part["keypoints"])
    theirs.xyxy[:] = 0
    assert detections.boxes.any()


@pytest.mark.parametrize("masks", [False, True])
def test_supervision_without_detections_or_masks(masks: bool) -> None:
    pytest.importorskip("supervision")
    assert len(example(0, masks=masks).to_supervision()) == 0
    theirs = example(masks=masks).to_supervision()
    assert (theirs.mask is not None) == masks
    assert len(theirs[[0, 2]]) == 2


def test_supervision_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[supervision\]'"):
        example().to_supervision()


def test_coco_rows_have_their_category() -> None:
    detections = example()
    rows: list[Any] = detections.to_coco(5)
    assert [row["category_id"] for row in rows] == (detections.labels * 10).tolist()
    assert {row["image_id"] for row in rows} == {5}
    assert all("segmentation" in row for row in rows)
