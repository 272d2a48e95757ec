"""Annotation files and cutouts: their pixels, and the form that their readers expect."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from model.errors import ArtifactError, ImageError, MissingDependencyError
from model.spec import ClassSpec, MaskHeadSpec, ModelSpec, ResNetSpec
from runtime.detections import Detections
from runtime.formats import crops, jsonl, labelme, rle, yolo
from runtime.formats.names import file_stem
from tests.oracles.polygons import rasterize

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


def test_a_yolo_line_holds_the_masks_pixels() -> None:
    detections = example(30)
    lines = detections.to_yolo_seg()
    several = [len(parts) > 1 or any(p.holes for p in parts) for parts in detections.polygons()]
    assert sum(several) > 5
    visible = [row for row, mask in enumerate(dense(detections)) if mask.any()]
    assert len(lines) == len(visible)
    for line, row in zip(lines, visible, strict=True):
        label, values = numbers(line)
        assert label == detections.labels[row] - 1
        assert (values >= 0).all()
        assert (values <= 1).all()
        ring = values.reshape(-1, 2) * IMAGE_HW[::-1]
        np.testing.assert_array_equal(rasterize([ring], IMAGE_HW), dense(detections)[row])


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


def test_a_row_without_pixels_has_no_yolo_line_and_no_polygon() -> None:
    detections = off_image(example(3), 1)
    assert len(detections.to_yolo_seg()) == 2
    rows = {shape["group_id"] for shape in detections.to_labelme("a.jpg")["shapes"]}
    assert rows == {0, 2}


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


def test_labelme_polygons_hold_the_masks_pixels() -> None:
    detections = example(30)
    document = json.loads(json.dumps(detections.to_labelme(Path("photos/a.jpg"))))
    assert set(document) == {
        "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth",
    }  # fmt: skip
    assert (document["imagePath"], document["imageData"]) == ("photos/a.jpg", None)
    assert (document["imageHeight"], document["imageWidth"]) == IMAGE_HW
    rings: dict[int, list[NDArray[np.float64]]] = {row: [] for row in range(30)}
    for shape in document["shapes"]:
        assert set(shape) == {
            "label", "points", "group_id", "description", "shape_type", "flags", "mask",
        }  # fmt: skip
        row = shape["group_id"]
        assert shape["shape_type"] == "polygon"
        assert shape["label"] == detections.names[row]
        assert shape["description"] == f"score {detections.scores[row]:.4f}"
        rings[row].append(np.array(shape["points"]))
    assert any(len(parts) > 1 for parts in rings.values())
    for row, mask in enumerate(dense(detections)):
        np.testing.assert_array_equal(rasterize(rings[row], IMAGE_HW), mask)
        assert len(rings[row]) == len(detections.polygons()[row])


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


def test_a_cutout_is_the_photo_with_the_mask_as_alpha() -> None:
    detections, pixels = example(20), picture()
    pictures = detections.cutouts(pixels)
    assert len(pictures) == 20
    for row, cutout in enumerate(pictures):
        mask, cut = dense(detections)[row], np.asarray(cutout)
        assert cutout.mode == "RGBA"
        x0, y0 = np.floor(detections.boxes[row, :2].clip(0)).astype(int)
        rows, columns = np.nonzero(mask)
        # The window starts at the box, or at the mask if that extends further.
        left, top = min(x0, columns.min(initial=90)), min(y0, rows.min(initial=60))
        height, width = cut.shape[:2]
        np.testing.assert_array_equal(cut[..., :3], pixels[top : top + height, left : left + width])
        whole = np.zeros(IMAGE_HW, np.uint8)
        whole[top : top + height, left : left + width] = cut[..., 3]
        np.testing.assert_array_equal(whole, mask * 255)


def test_cutouts_of_a_box_only_model_are_rgb() -> None:
    detections = example(1, masks=False)
    whole_pixels = replace(detections, boxes=np.array([[10.4, 5, 20.2, 30.9]], np.float32))
    (cutout,) = whole_pixels.cutouts(Image.fromarray(picture()))
    assert (cutout.mode, cutout.size) == ("RGB", (11, 26))
    np.testing.assert_array_equal(np.asarray(cutout), picture()[5:31, 10:21])


@pytest.mark.parametrize("masks", [False, True])
def test_a_cutout_outside_the_image_has_no_size(masks: bool) -> None:
    pictures = off_image(example(3, masks=masks), 1).cutouts(picture())
    assert pictures[1].size == (0, 0)
    assert min(pictures[0].size) > 0
    assert example(0).cutouts(picture()) == []


def test_cutouts_of_other_photos_and_into_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cutouts: expected an RGB image as uint8 \[60, 90, 3\]"):
        example().cutouts(picture()[:-1])
    (tmp_path / "a").write_text("a file")
    with pytest.raises(ArtifactError, match="cannot write"):
        crops.write(tmp_path / "a", picture(), example())


def test_cutout_files_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    detections = off_image(example(4), 1)
    crops.write(tmp_path / "a", picture(), detections)
    (tmp_path / "a" / "mine.png").write_text("not ours")
    names = {path.name for path in (tmp_path / "a").iterdir()} - {"mine.png"}
    assert names == {f"{row:03d}-{file_stem(detections.names[row])}.png" for row in (0, 2, 3)}
    with Image.open(tmp_path / "a" / f"000-{file_stem(detections.names[0])}.png") as saved:
        np.testing.assert_array_equal(
            np.asarray(saved), np.asarray(detections.cutouts(picture())[0])
        )
    crops.write(tmp_path / "a", picture(), detections.take([0]))
    assert len(list((tmp_path / "a").iterdir())) == 2
    crops.write(tmp_path / "b", picture(), example(0))
    assert not (tmp_path / "b").exists()


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
