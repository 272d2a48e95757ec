"""Files as other tools write them give the labels of the tidy file, and a line where one is due."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.spec import KeypointHeadSpec
from runtime.annotations.labeled_photos import find_labeled_photos
from runtime.annotations.labels import labels_for
from tests.runtime.annotations.coco_files import (
    BOX_SPEC,
    HEIGHT,
    KEYPOINT_SPEC,
    SPEC,
    WIDTH,
    Change,
    Document,
    labels,
    plain,
    rectangle,
)

pytest.importorskip("pycocotools")


def _each(part: str, change: Change) -> Change:
    """A change of every entry of a part."""

    def apply(document: Document) -> None:
        for entry in document[part]:
            change(entry)

    return apply


def _set(part: str, **fields: Any) -> Change:
    return _each(part, lambda entry: entry.update(fields))


def _convert(name: str, *fields: tuple[str, str]) -> Change:
    """Convert fields of all entries by a type's name."""
    convert = {"float": float, "str": str, "padded": lambda one: f"{one:06d}"}[name]

    def apply(document: Document) -> None:
        for part, field in fields:
            for entry in document[part]:
                entry[field] = convert(entry[field])

    return apply


def _drop(part: str, *fields: str) -> Change:
    return _each(part, lambda entry: [entry.pop(field) for field in fields])


def _renumber_categories(shift: int) -> Change:
    def apply(document: Document) -> None:
        for entry in document["categories"]:
            entry["id"] += shift
        for entry in document["annotations"]:
            entry["category_id"] += shift

    return apply


def _uncompressed(document: Document) -> None:
    for one in document["annotations"]:
        one["segmentation"] = rectangle(*one["bbox"])


def _text_of_bytes(document: Document) -> None:
    for one in document["annotations"]:
        one["segmentation"]["counts"] = repr(one["segmentation"]["counts"].encode())


def _unused_background(document: Document) -> None:
    document["categories"].insert(0, {"id": 0, "name": "_background_"})


def _roboflow(document: Document) -> None:
    document["categories"].insert(0, {"id": 0, "name": "animal", "supercategory": "none"})


def _images_twice(document: Document) -> None:
    document["images"] += [{**one, "license": 3} for one in document["images"]]


def _categories_twice(document: Document) -> None:
    document["categories"] += [{**one, "supercategory": ""} for one in document["categories"]]


def _whole_file_twice(document: Document) -> None:
    for part in ("images", "annotations", "categories"):
        document[part] += document[part]


def _unlisted_image(document: Document) -> None:
    document["annotations"].append({**document["annotations"][0], "id": 9, "image_id": 99})


IDS = (
    ("images", "id"), ("categories", "id"), ("annotations", "id"), ("annotations", "image_id"),
    ("annotations", "category_id"),
)  # fmt: skip
SIDES = (("images", "height"), ("images", "width"))
NAN = float("nan")
# What a file has otherwise, the change, and a part of the line about it.
SAME: list[tuple[str, Change, str]] = [
    ("annotation ids from 0", _each("annotations", lambda one: one.update(id=one["id"] - 1)), ""),
    ("annotation ids used twice", _set("annotations", id=1), ""),
    ("annotation ids null", _set("annotations", id=None), ""),
    ("no annotation ids", _drop("annotations", "id"), ""),
    ("float ids", _convert("float", *IDS), ""),
    ("text ids", _convert("str", *IDS), ""),
    ("padded text ids", _convert("padded", ("images", "id"), ("annotations", "image_id")), ""),
    ("text references", _convert("str", *IDS[3:]), ""),
    ("padded references", _convert("padded", IDS[3]), ""),
    ("float text references", _convert("str", *IDS[:3]), ""),
    ("categories from 0", _renumber_categories(-1), "3 of 3 have other ids"),
    ("categories elsewhere", _renumber_categories(500), "3 of 3 have other ids"),
    (
        "names in capitals",
        _each("categories", lambda one: one.update(name=f" {one['name'].upper()} ")),
        "",
    ),
    ("no category names", _drop("categories", "name"), "matched by id, since the file has no"),
    ("no categories", lambda document: document.pop("categories"), "matched by id"),
    ("categories null", lambda document: document.update(categories=None), "matched by id"),
    ("unused background", _unused_background, ""),
    ("Roboflow's heading", _roboflow, ""),
    (
        "no iscrowd of single objects",
        lambda d: [one.pop("iscrowd") for one in d["annotations"][:3]],
        "iscrowd (3)",
    ),
    (
        "iscrowd true",
        _each("annotations", lambda one: one.update(iscrowd=bool(one["iscrowd"]))),
        "",
    ),
    ("iscrowd as text", _convert("str", ("annotations", "iscrowd")), ""),
    ("no area", _drop("annotations", "area"), "area (4)"),
    ("area null", _set("annotations", area=None), "area (4)"),
    ("area NaN, as of pandas", _set("annotations", area=NAN), "area (4)"),
    ("area 0", _set("annotations", area=0), "area (4)"),
    ("no boxes", _drop("annotations", "bbox"), "bbox (4)"),
    ("boxes null", _set("annotations", bbox=None), "bbox (4)"),
    ("boxes empty", _set("annotations", bbox=[]), "bbox (4)"),
    ("boxes 0", _set("annotations", bbox=[0, 0, 0, 0]), "bbox (4)"),
    (
        "boxes and areas 0",
        _set("annotations", bbox=[0, 0, 0, 0], area=0),
        "bbox (4), area (4)",
    ),
    (
        "boxes as text",
        _each("annotations", lambda one: one.update(bbox=[f"{n}.0" for n in one["bbox"]])),
        "",
    ),
    ("no sizes", _drop("images", "height", "width"), ""),
    ("sizes 0", _set("images", height=0, width=0), ""),
    ("sizes NaN", _set("images", height=NAN, width=NAN), ""),
    ("float sizes", _convert("float", *SIDES), ""),
    ("sizes as text", _convert("str", *SIDES), ""),
    ("uncompressed run lengths", _uncompressed, ""),
    ("run lengths as text of bytes", _text_of_bytes, ""),
    ("images twice", _images_twice, ""),
    ("everything twice", _whole_file_twice, "4 of 8 annotations repeat"),
    ("categories with other supercategories", _categories_twice, ""),
    ("an annotation of an unlisted image", _unlisted_image, "1 of 5 annotations have an image_id"),
    (
        "a photo that is missing",
        lambda d: d["images"].append({"id": 3, "file_name": "3.png"}),
        "1 of 3 labeled photos are not in",
    ),
    (
        "URLs only",
        _each("images", lambda one: one.update(coco_url=f"http://x/y/{one.pop('file_name')}")),
        "found by parts",
    ),
    (
        "paths of another machine",
        _each("images", lambda one: one.update(file_name="/data/upload/1/" + one["file_name"])),
        "2 of 2 photos",
    ),
]


def test_dialects_give_the_tidy_labels(folder: Path, subtests: pytest.Subtests) -> None:
    expected = labels(folder, plain())
    assert expected.notices == ()
    assert expected.iou_types == ("bbox", "segm")
    for name, change, line in SAME:
        with subtests.test(name):
            document = plain()
            change(document)
            found = labels(folder, document)
            assert found.document["annotations"] == expected.document["annotations"]
            assert list(found.photos) == [1, 2]
            sizes = [(image["height"], image["width"]) for image in found.document["images"]]
            assert sizes == [(HEIGHT, WIDTH)] * 2
            assert found.iou_types == ("bbox", "segm")
            assert len(found.notices) == bool(line)
            assert line in "".join(found.notices)


def test_byte_order_marks_are_read(folder: Path) -> None:
    expected = labels(folder, plain()).document
    text = json.dumps(plain())
    for encoding in ("utf-8-sig", "utf-16"):
        (folder / "marked.json").write_bytes(text.encode(encoding))
        found = find_labeled_photos(folder / "marked.json", folder)
        assert labels_for(found, SPEC).document == expected


def test_ids_that_are_no_numbers_get_numbers_in_their_order(folder: Path) -> None:
    document = plain()
    names = {1: "b", 2: "a"}
    for image in document["images"]:
        image["id"] = names[image["id"]]
    for one in document["annotations"]:
        one["image_id"] = names[one["image_id"]]
    found = labels(folder, document)
    assert {number: path.name for number, path in found.photos.items()} == {2: "1.png", 1: "2.png"}
    assert [one["image_id"] for one in found.document["annotations"]] == [2, 2, 1, 1]


NO_MASK: list[object] = [[], [[]], [[], []], None, {}, "", NAN]


def test_without_all_masks_there_is_box_ap_only(folder: Path, subtests: pytest.Subtests) -> None:
    expected = [
        {name: value for name, value in one.items() if name != "segmentation"}
        for one in labels(folder, plain()).document["annotations"]
    ]
    some = "1 of 4 objects have no segmentation (first: object 1 on image 1); add it, or remove"
    for count, text in ((4, "none of the 4 objects has a segmentation"), (1, some)):
        for value in NO_MASK:
            with subtests.test(count=count, value=value):
                document = plain()
                for one in document["annotations"][:count]:
                    one["segmentation"] = value
                found = labels(folder, document)
                assert found.iou_types == ("bbox",)
                (line,) = found.notices
                assert line.startswith(f"no mask AP: {text}")
                assert found.document["annotations"] == expected
    document = plain()
    _drop("annotations", "segmentation", "area")(document)
    areas = [one["area"] for one in labels(folder, document).document["annotations"]]
    assert areas == [108, 80, 165, 108]


def test_a_box_model_needs_no_masks(folder: Path) -> None:
    document = plain()
    _set("annotations", segmentation="abc")(document)
    found = labels(folder, document, BOX_SPEC)
    assert found.iou_types == ("bbox",)
    assert found.notices == ()
    # The area of the mask, if it has one: the size class must not depend on the model.
    document = plain()
    document["annotations"][0].pop("area")
    document["annotations"][0]["bbox"][2] += 1
    assert labels(folder, document, BOX_SPEC).document["annotations"][0]["area"] == 108


KEYPOINTS = [10, 10, 2, 12, 14, 0]


@pytest.mark.parametrize(
    ("keypoints", "iou_types", "line"),
    [
        ([KEYPOINTS] * 4, ("bbox", "keypoints"), ""),
        ([KEYPOINTS, None, [], [0] * 6], ("bbox", "keypoints"), ""),
        ([KEYPOINTS, KEYPOINTS * 2, None, None], ("bbox",), "1 of 4 objects have another number"),
        ([[0] * 6] * 4, ("bbox",), "none of the 4 objects has keypoints"),
        ([None] * 4, ("bbox",), "none of the 4 objects has keypoints"),
    ],
)
def test_keypoints(
    keypoints: list[Any], iou_types: tuple[str, ...], line: str, folder: Path
) -> None:
    document = plain()
    for one, points in zip(document["annotations"], keypoints, strict=True):
        one["keypoints"] = points
    found = labels(folder, document, KEYPOINT_SPEC)
    assert found.iou_types == iou_types
    assert len(found.notices) == bool(line)
    assert line in "".join(found.notices)
    if "keypoints" in iou_types:
        rows = found.document["annotations"]
        assert [row["num_keypoints"] for row in rows] == [p == KEYPOINTS for p in keypoints]
        assert [row["keypoints"] for row in rows] == [p or [0] * 6 for p in keypoints]
        for one in document["annotations"]:
            one["num_keypoints"] = 2
        rows = labels(folder, document, KEYPOINT_SPEC).document["annotations"]
        assert rows[0]["num_keypoints"] == 2


def test_keypoints_match_by_name(folder: Path, subtests: pytest.Subtests) -> None:
    moved = [12, 14, 0, 10, 10, 2]
    for names, expected, line in (
        (["head", "tail"], KEYPOINTS, ""),
        (["Head ", "TAIL"], KEYPOINTS, ""),
        (["tail", "head"], moved, "of 4 of 4 objects are matched by name, since the model has"),
        (["nose", "end"], KEYPOINTS, "other names than the model's (['nose', 'end'],"),
        (["tail"], KEYPOINTS, ""),
        (["tail", 7], KEYPOINTS, ""),
    ):
        with subtests.test(names=names):
            document = plain()
            _set("annotations", keypoints=KEYPOINTS)(document)
            _set("categories", keypoints=names)(document)
            found = labels(folder, document, KEYPOINT_SPEC)
            assert [row["keypoints"] for row in found.document["annotations"]] == [expected] * 4
            assert len(found.notices) == bool(line)
            assert line in "".join(found.notices)
    numbered = replace(KEYPOINT_SPEC, keypoint=KeypointHeadSpec(names=("keypoint_0", "keypoint_1")))
    assert labels(folder, document, numbered).notices == ()


UNLIKELY: list[tuple[Change, str]] = [
    (
        lambda d: [one.update(iscrowd=1) for one in d["annotations"][1:]],
        "3 of 4 objects are crowds (iscrowd 1), which AP leaves out; some tools write that",
    ),
    (
        lambda d: d["annotations"].extend([{**one, "id": None} for one in d["annotations"]]),
        "4 of 8 objects repeat another one (photo, category, box and mask); all of them count",
    ),
    (
        _each("annotations", lambda one: one.update(bbox=[one["bbox"][0], one["bbox"][1],
              one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]])),
        "boxes reach out of their photo by more than 1 px",
    ),
    (
        _set("annotations", bbox=[0.1, 0.2, 0.5, 0.5], area=0.25),
        "all 4 boxes are at most 1 px wide and high; expected pixels, not fractions",
    ),
    (_set("annotations", bbox=[0, 0, 39, 29]), "4 of 4 boxes overlap with their mask's box by"),
    (
        _set("annotations", segmentation=[[50, 50, 60, 50, 60, 60]]),
        "4 of 4 masks have no pixel in their photo",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "line"), UNLIKELY, ids=[line for _, line in UNLIKELY])
def test_unlikely_shapes_get_a_line(change: Change, line: str, folder: Path) -> None:
    document = plain()
    change(document)
    assert any(line in notice for notice in labels(folder, document).notices)
