"""The files of a run in every format, and how an interrupted run resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from model.errors import ArtifactError, UsageError
from model.spec import KeypointHeadSpec, ModelSpec
from runtime.detections import Detections
from runtime.formats import coco, jsonl
from runtime.formats.result_writer import FORMATS, ResultWriter, require_formats
from runtime.formats.resume import done_ids
from runtime.sources.items import ItemName
from runtime.sources.photos import decode
from tests.runtime.formats.test_annotation_files import IMAGE_HW, SPEC, example, picture

BOX_SPEC = replace(SPEC, mask=None)
KEYPOINT_SPEC = replace(SPEC, mask=None, keypoint=KeypointHeadSpec(names=("head", "tail")))
FILES = {
    "overlay": {"a.png", "b.png"},
    "json": {"results.json"},
    "jsonl": {"results.jsonl", ".resume.json"},
    "rle": {"rle.json"},
    "crops": {"crops/a/000-dog.png", "crops/a/001-cat.png"},
    "yolo": {"labels/a.txt", "labels/b.txt", "classes.txt", "data.yaml"},
    "labelme": {"labelme/a.json", "labelme/a.png", "labelme/b.json", "labelme/b.png"},
}
LINES = {
    "overlay": "overlays: {}",
    "json": "COCO results: {}/results.json",
    "jsonl": "JSON Lines: {}/results.jsonl",
    "rle": "run lengths: {}/rle.json",
    "crops": "cutouts: {}/crops",
    "yolo": "YOLO labels: {0}/labels (classes: {0}/classes.txt)",
    "labelme": "labelme files: {}/labelme",
}


def two(masks: bool = True, keypoints: bool = False) -> Detections:
    """A dog and a cat."""
    return replace(
        example(2, masks, keypoints), labels=np.array([2, 1]), names=("dog", "cat"),
        boxes=np.array([[5, 5, 50, 40], [30, 10, 80, 55]], np.float32),
    )  # fmt: skip


def write(
    writer: ResultWriter, name: str, stem: str, detections: Detections, image_id: int = 0
) -> None:
    item = ItemName(name, stem, image_id=image_id)
    writer.write_files(item, picture(), detections)
    writer.write_record(item, detections)


def run(
    folder: Path,
    formats: Sequence[str],
    photos: dict[str, Detections],
    spec: ModelSpec = SPEC,
    resume: bool = False,
    is_interrupted: bool = False,
    settings: dict[str, Any] | None = None,
) -> list[str]:
    """A run over photos, as a command does it; an interrupted one does not finish."""
    with ResultWriter(formats, folder, spec, resume, settings) as writer:
        done = done_ids(folder, formats) if resume else {}
        for image_id, (name, detections) in enumerate(photos.items()):
            if name not in done:
                write(writer, name, Path(name).stem, detections, image_id)
        return [] if is_interrupted else writer.finish()


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_writes_and_reports_its_files(name: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    lines = run(out, [name], {"in/a.jpg": two(), "in/b.jpg": example(0)})
    assert files(out) == FILES[name]
    assert lines == [LINES[name].format(out)]


def test_all_formats_together(tmp_path: Path) -> None:
    lines = run(tmp_path, FORMATS, {"a.jpg": two(), "b.jpg": example(0)})
    assert files(tmp_path) == set().union(*FILES.values())
    assert sorted(lines) == sorted(line.format(tmp_path) for line in LINES.values())


@pytest.mark.parametrize(
    ("spec", "detections"),
    [(BOX_SPEC, two(masks=False)), (KEYPOINT_SPEC, two(masks=False, keypoints=True))],
    ids=["boxes", "keypoints"],
)
def test_models_without_masks(spec: ModelSpec, detections: Detections, tmp_path: Path) -> None:
    formats = [name for name in FORMATS if name != "rle"]
    run(tmp_path, formats, {"a.jpg": detections, "b.jpg": detections.take([])}, spec)
    assert files(tmp_path) == set().union(*(FILES[name] for name in formats))
    rows = json.loads((tmp_path / "results.json").read_text())
    assert rows == json.loads(json.dumps(coco.rows(detections, 0)))
    assert len((tmp_path / "labels" / "a.txt").read_text().splitlines()) == 2
    shape_types = {
        shape["shape_type"]
        for shape in json.loads((tmp_path / "labelme" / "a.json").read_text())["shapes"]
    }
    assert shape_types == ({"rectangle", "point"} if spec.keypoint else {"rectangle"})
    with pytest.raises(UsageError, match="rle needs masks, and this model has none"):
        ResultWriter(["rle"], tmp_path, spec)


def test_results_of_all_photos_and_of_none(tmp_path: Path) -> None:
    photos = {f"{i}.jpg": example(i, seed=i) for i in range(4)}
    run(tmp_path, ["json"], photos)
    expected = [row for i, d in enumerate(photos.values()) for row in coco.rows(d, i)]
    assert json.loads((tmp_path / "results.json").read_text()) == expected
    assert run(tmp_path, ["json", "overlay"], {}) == [f"COCO results: {tmp_path}/results.json"]
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_an_overlay_is_the_drawing(tmp_path: Path) -> None:
    run(tmp_path, ["overlay"], {"a.jpg": two()})
    with Image.open(tmp_path / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(two().draw(picture())))


def test_stems_stay_in_the_folder(tmp_path: Path) -> None:
    with ResultWriter(FORMATS, tmp_path / "out", SPEC) as writer:
        write(writer, "x", "../a", two())
        write(writer, "y", "", two(), 1)
        writer.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 2


def test_labelme_finds_the_photo(tmp_path: Path) -> None:
    photo = tmp_path / "photos" / "a.png"
    photo.parent.mkdir()
    Image.fromarray(picture()).save(photo)
    run(tmp_path / "out", ["labelme"], {str(photo): two(), "clip.mp4#000001": two()})
    folder = tmp_path / "out" / "labelme"
    named = json.loads((folder / "a.json").read_text())["imagePath"]
    assert (folder / named).resolve() == photo
    assert not (folder / "a.png").exists()
    (frame,) = (path for path in folder.glob("*.json") if path.name != "a.json")
    with Image.open(folder / json.loads(frame.read_text())["imagePath"]) as saved:
        np.testing.assert_array_equal(np.asarray(saved), picture())
        assert saved.size == IMAGE_HW[::-1]


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", ".jpg"), ("I;16", ".png"), ("I;16", ".tif"), ("CMYK", ".tif")]
)
def test_a_photo_that_labelme_cannot_open_is_written_beside_its_file(
    mode: str, suffix: str, tmp_path: Path
) -> None:
    photo = tmp_path / f"a{suffix}"
    Image.new(mode, IMAGE_HW[::-1]).save(photo)
    run(tmp_path / "out", ["labelme"], {str(photo): two()})
    folder = tmp_path / "out" / "labelme"
    assert json.loads((folder / "a.json").read_text())["imagePath"] == "a.png"
    with Image.open(folder / "a.png") as saved:
        assert saved.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(saved), picture())
    # A photo that was decoded at a fraction of its size is decoded again.
    with ResultWriter(["labelme"], tmp_path / "out", SPEC) as writer:
        writer.write_files(ItemName(str(photo), "a"), picture()[::2, ::2], two())
    with Image.open(folder / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), decode(photo))


def test_a_photo_that_labelme_turns_otherwise_is_written_beside_its_file(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    picture_ = Image.fromarray(picture())
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    # labelme turns pixels by EXIF only, and refuses a file whose EXIF is damaged.
    for name, options, is_opened in [
        ("exif.jpg", {"exif": exif}, True),
        ("exif.png", {"exif": exif}, True),
        ("exif.webp", {"exif": exif}, True),
        ("xmp.jpg", {"xmp": xmp}, False),
        ("xmp.webp", {"xmp": xmp}, False),
        ("tag.tif", {"tiffinfo": {ExifTags.Base.Orientation: 6}}, False),
        ("damaged.png", {"exif": b"damaged"}, False),
        ("damaged.webp", {"exif": b"damaged"}, False),
    ]:
        with subtests.test(name):
            photo = tmp_path / name
            picture_.save(photo, **options)  # type: ignore[arg-type]
            run(tmp_path / "out", ["labelme"], {str(photo): two()})
            content = json.loads((tmp_path / "out" / "labelme" / f"{photo.stem}.json").read_text())
            expected = f"../../{name}" if is_opened else f"{photo.stem}.png"
            assert content["imagePath"] == expected


@pytest.mark.skipif(os.name == "nt", reason="a separator of Windows, and links need rights there")
def test_labelme_finds_the_photo_behind_a_link_and_with_a_backslash(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "far" / "away")
    for name, expected in (("a.png", "../../../a.png"), ("b\\c.png", None)):
        photo = tmp_path / name
        Image.fromarray(picture()).save(photo)
        with ResultWriter(["labelme"], tmp_path / "out", SPEC) as writer:
            writer.write_files(ItemName(str(photo), "d"), picture(), two())
        path = tmp_path / "out" / "labelme" / "d.json"
        assert json.loads(path.read_text())["imagePath"] == (expected or "d.png")
        assert path.with_suffix(".png").exists() == (expected is None)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_photo_that_labelme_opens_is_not_written_again(mode: str, tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    Image.new(mode, IMAGE_HW[::-1]).save(photo)
    run(tmp_path / "out", ["labelme"], {str(photo): two()})
    assert files(tmp_path / "out") == {"labelme/a.json"}


def test_labelme_mask_shapes(tmp_path: Path) -> None:
    with ResultWriter(["labelme"], tmp_path, SPEC, labelme_shape="mask") as writer:
        write(writer, "a.jpg", "a", two())
    shapes = json.loads((tmp_path / "labelme" / "a.json").read_text())["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["mask", "mask"]
    with pytest.raises(UsageError, match="labelme-shape: mask needs masks, and this model has"):
        ResultWriter(["labelme"], tmp_path, BOX_SPEC, labelme_shape="mask")


@pytest.mark.parametrize(
    "formats", [["json"], ["jsonl"], ["json", "jsonl", "rle"], ["overlay"], FORMATS]
)
def test_an_interrupted_run_resumes_to_the_same_files(
    formats: Sequence[str], tmp_path: Path
) -> None:
    photos = {f"{i}.jpg": example(3, seed=i) for i in range(5)}
    first = dict(list(photos.items())[:3])
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    run(whole, formats, photos)
    run(resumed, formats, first, is_interrupted=True)
    log = resumed / ("results.jsonl" if "jsonl" in formats else ".results.jsonl")
    log.write_bytes(log.read_bytes() + b'{"image": "3.jpg", "det')
    assert list(done_ids(resumed, formats)) == list(first)
    # A photo that is done is skipped: this one would give other results.
    run(resumed, formats, {**photos, "0.jpg": example(9)}, resume=True)
    assert files(resumed) == files(whole)
    for name in files(whole):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    formats = ["overlay", "json", "yolo"]
    (tmp_path / "labels" / "a.txt").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"cannot write .*a\.txt"):
        run(tmp_path, formats, {"a.jpg": two()})
    assert (tmp_path / "a.png").exists()
    assert done_ids(tmp_path, formats) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"file/out: cannot create the folder .* with -o"):
        ResultWriter(["json"], tmp_path / "file" / "out", SPEC)
    (tmp_path / "labelme").write_text("")
    with pytest.raises(ArtifactError, match=r"labelme: cannot create the folder"):
        run(tmp_path, ["labelme"], {"a.jpg": two()})


def test_runs_start_over_resume_or_are_extended(tmp_path: Path) -> None:
    run(tmp_path, ["json"], {"a.jpg": two()}, resume=True)
    assert len(json.loads((tmp_path / "results.json").read_text())) == 2
    run(
        tmp_path, ["json"], {"a.jpg": two()}, is_interrupted=True, settings={"score_threshold": 0.1}
    )
    run(tmp_path, ["json"], {"b.jpg": two()})
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 2
    assert files(tmp_path) == {"results.json"}
    formats = ["json", "jsonl"]
    run(tmp_path, formats, {"a.jpg": two()})
    run(tmp_path, formats, {"a.jpg": two(), "b.jpg": two()}, resume=True)
    assert jsonl.read_names(tmp_path / "results.jsonl") == {"a.jpg", "b.jpg"}
    assert len(json.loads((tmp_path / "results.json").read_text())) == 4


@pytest.mark.parametrize(
    ("change", "formats", "message"),
    [
        ({"score_threshold": 0.3}, ["json"], "had score_threshold 0.5, this one has 0.3"),
        ({}, ["json"], "had score_threshold 0.5, this one has null"),
        (
            {"score_threshold": {"a": 0.5}},
            ["json"],
            r'had score_threshold 0.5, this one has \{"a": 0.5\}',
        ),
        ({"score_threshold": ["a" * 99]}, ["json"], r'this one has \["a{78}…;'),
        (
            {"score_threshold": 0.5},
            ["jsonl"],
            r'had save \["json"\], this one has \["jsonl"\]',
        ),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(
    change: dict[str, Any], formats: list[str], message: str, tmp_path: Path
) -> None:
    run(
        tmp_path, ["json"], {"a.jpg": two()}, is_interrupted=True, settings={"score_threshold": 0.5}
    )
    before = (tmp_path / ".results.jsonl").read_bytes()
    with pytest.raises(UsageError, match=message):
        ResultWriter(formats, tmp_path, SPEC, True, change)
    assert (tmp_path / ".results.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_results_without_settings_are_not_resumed(content: str | None, tmp_path: Path) -> None:
    run(tmp_path, ["jsonl"], {"a.jpg": two()})
    (tmp_path / ".resume.json").unlink()
    if content is not None:
        (tmp_path / ".resume.json").write_text(content)
    with pytest.raises(UsageError, match="holds results without their settings"):
        ResultWriter(["jsonl"], tmp_path, SPEC, True)


@pytest.mark.parametrize(
    ("formats", "message"),
    [(["overlays"], "got 'overlays'"), ([], "got nothing"), (["json", "xml"], "got 'xml'")],
)
def test_unknown_formats_are_refused(formats: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"--save: expected some of overlay, json, .*, {message}"):
        require_formats(formats)
