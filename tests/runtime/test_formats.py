"""Result files, read back by those who will read them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.parity.torchvision_reference import EagerDetections
from model.errors import ArtifactError
from model.spec import ClassSpec
from runtime.detections import Detections
from runtime.formats import coco, jsonl
from runtime.formats import rle as rle_file
from runtime.masks import rle

ROOT = Path(__file__).resolve().parents[2]
IDS = np.array([17, 18, 21, 40])
CLASSES = ClassSpec(("cat", "dog", "cow"), dataset_ids=(17, 18, 21))


def detections(rows: int = 4, seed: int = 1, masks: bool = True) -> Detections:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (rows, 2))
    labels = rng.integers(0, 3, rows)
    return Detections(
        boxes=np.concatenate((corner, corner + rng.uniform(1, 40, (rows, 2))), axis=1).astype("f4"),
        scores=rng.random(rows, np.float32),
        labels=labels,
        names=tuple(CLASSES.names[label] for label in labels),
        mask_probs=rng.random((rows, 14, 14), np.float32) if masks else None,
        image_hw=(90, 120),
        exact=False,
    )


def failing() -> Iterator[tuple[int, Detections]]:
    yield 1, detections()
    raise RuntimeError("the second image")


def test_coco_rows_of_an_eager_models_answer() -> None:
    """It has labels and pasted masks, and neither names nor category ids."""
    pytest.importorskip("pycocotools")
    ours = detections()
    masks = ours.masks
    assert masks is not None
    eager = EagerDetections(
        ours.boxes, ours.scores, ours.labels, ours.mask_probs, np.packbits(masks, -1), (90, 120)
    )
    assert coco.rows_by_class(eager, 3, CLASSES) == coco.rows(ours, 3, CLASSES)
    named = replace(ours, dataset_ids=np.array([CLASSES.dataset_id(i) for i in ours.labels]))
    assert coco.rows_by_class(eager, 3, CLASSES) == coco.rows(named, 3)


def test_coco_rows_are_read_by_pycocotools(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    first, second = detections(seed=1), detections(seed=2)
    path = tmp_path / "results.json"
    coco.write(path, [(7, first), (9, second)], CLASSES)
    truth = coco_api.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 90, "width": 120} for i in (7, 9)],
        "categories": [{"id": i} for i in CLASSES.dataset_ids],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(path))
    for image_id, expected in ((7, first), (9, second)):
        rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[image_id]))
        assert [row["category_id"] for row in rows] == [
            CLASSES.dataset_ids[label] for label in expected.labels
        ]
        assert expected.masks is not None
        for row, mask in zip(rows, expected.masks, strict=True):
            np.testing.assert_array_equal(loaded.annToMask(row), mask)


def test_coco_numbers_give_back_every_bit() -> None:
    found = detections(50)
    rows = json.loads(json.dumps(coco.rows(found, 3, CLASSES)))
    assert [row["image_id"] for row in rows] == [3] * 50
    scores = np.array([row["score"] for row in rows], np.float32)
    np.testing.assert_array_equal(scores, found.scores)
    xywh = np.array([row["bbox"] for row in rows])
    xyxy = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)
    np.testing.assert_array_equal(xyxy.astype(np.float32), found.boxes)


def test_coco_of_a_box_only_model_has_no_segmentation() -> None:
    rows = coco.rows(detections(masks=False), 3, CLASSES)
    assert len(rows) == 4
    assert all("segmentation" not in row for row in rows)


@pytest.mark.parametrize(
    "results",
    [[], [(1, detections(0))], [(1, detections(0)), (2, detections(1)), (3, detections(0))]],
    ids=["no-images", "nothing-found", "empty-around-one"],
)
def test_coco_file_is_a_list(tmp_path: Path, results: list[tuple[int, Detections]]) -> None:
    path = tmp_path / "results.json"
    coco.write(path, results, CLASSES)
    expected = [row for image_id, found in results for row in coco.rows(found, image_id, CLASSES)]
    assert json.loads(path.read_text()) == expected


def test_failure_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="second image"):
        coco.write(path, failing(), CLASSES)
    with pytest.raises(RuntimeError, match="second image"):
        jsonl.write(path, ((str(name), found) for name, found in failing()))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_jsonl_has_one_line_per_image(tmp_path: Path) -> None:
    found, path = detections(), tmp_path / "results.jsonl"
    awkward = "фото \u2028 \udcff\n.jpg"
    jsonl.write(path, [(awkward, found), ("b.jpg", replace(detections(0), exact=True))])
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    first, second = map(json.loads, lines)
    assert first["image"] == awkward
    assert (first["height"], first["width"], first["exact"]) == (90, 120, False)
    assert second == {
        "image": "b.jpg",
        "height": 90,
        "width": 120,
        "exact": True,
        "detections": [],
    }


def test_jsonl_detection_gives_back_every_bit() -> None:
    found = detections()
    rows = json.loads(json.dumps(jsonl.record("a.jpg", found)))["detections"]
    np.testing.assert_array_equal(
        np.array([row["box_xyxy"] for row in rows], np.float32), found.boxes
    )
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], "f4"), found.scores)
    assert [row["label"] for row in rows] == found.labels.tolist()
    assert tuple(row["name"] for row in rows) == found.names
    assert found.masks is not None
    for row, mask in zip(rows, found.masks, strict=True):
        np.testing.assert_array_equal(rle.decode(row["rle"]), mask)


def test_jsonl_of_a_box_only_model_has_no_rle() -> None:
    rows = jsonl.record("a.jpg", detections(masks=False))["detections"]
    assert [sorted(row) for row in rows] == [
        ["box_xyxy", "category_id", "label", "name", "score"]
    ] * 4


def test_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "results"
    with pytest.raises(ArtifactError, match=r"cannot write .*No such file"):
        coco.write(path, [], CLASSES)
    with pytest.raises(ArtifactError, match=r"cannot write .*No such file"):
        jsonl.write(path, [])


def run_lengths(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_file_of_records_gives_the_same_coco_file_and_run_lengths(tmp_path: Path) -> None:
    results = {f"{i}.jpg": replace(detections(i, seed=i), dataset_ids=IDS[:i]) for i in range(5)}
    with jsonl.Writer(tmp_path / "results.jsonl") as writer:
        for image_id, (image, found) in enumerate(results.items()):
            writer.add(image, found, image_id + 7)
    coco.write(tmp_path / "direct.json", enumerate(results.values(), 7))
    coco.write_from_jsonl(tmp_path / "later.json", tmp_path / "results.jsonl")
    assert (tmp_path / "direct.json").read_bytes() == (tmp_path / "later.json").read_bytes()
    rows = json.loads((tmp_path / "later.json").read_text())
    assert [row["category_id"] for row in rows if row["image_id"] == 11] == IDS[:4].tolist()
    rle_file.write(tmp_path / "direct", results.items())
    rle_file.write_from_jsonl(tmp_path / "later", tmp_path / "results.jsonl")
    assert (tmp_path / "direct").read_bytes() == (tmp_path / "later").read_bytes()


def test_run_lengths_by_photo_are_taken_by_pycocotools_as_they_are(tmp_path: Path) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    first, path = detections(), tmp_path / "rle.json"
    rle_file.write(path, [("a.jpg", first), ("é\n.jpg", detections(0))])
    read = run_lengths(path)
    assert read["é\n.jpg"] == {"size": [90, 120], "detections": []}
    assert read["a.jpg"]["size"] == [90, 120]
    assert first.masks is not None
    for row, (mask, name) in enumerate(zip(first.masks, first.names, strict=True)):
        entry = read["a.jpg"]["detections"][row]
        assert set(entry) == {"category", "score", "rle"}
        assert entry["category"] == name
        np.testing.assert_array_equal(coco_mask.decode(entry["rle"]), mask)


def test_run_lengths_need_masks_and_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "rle.json"
    path.write_text("old")
    with pytest.raises(ArtifactError, match=r"a.jpg has detections without masks; .* save json"):
        rle_file.write(path, [("a.jpg", detections(masks=False))])
    with pytest.raises(ArtifactError, match=r"two images are named a.jpg"):
        rle_file.write(path, [("a.jpg", detections())] * 2)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def written(path: Path, *names: str, resume: bool = False) -> None:
    with jsonl.Writer(path, resume=resume) as writer:
        for name in names:
            writer.add(name, detections(2))


def test_a_record_is_in_the_file_when_it_was_added(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with jsonl.Writer(path) as writer:
        for count in range(1, 4):
            writer.add(f"{count}.jpg", detections(count))
            assert len(list(jsonl.read(path))) == count
    assert jsonl.read_names(path) == {"1.jpg", "2.jpg", "3.jpg"}


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, "a.jpg", "b.jpg")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in (0, 1, first - 1, first, first + 1, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        names = ["a.jpg", "b.jpg"][: whole[:size].count(b"\n")]
        assert jsonl.read_names(path) == set(names)
        written(path, "c.jpg", resume=True)
        assert [found["image"] for found in jsonl.read(path)] == [*names, "c.jpg"]


def test_a_torn_line_longer_than_a_block_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, "a.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"image": "' + b"b" * 200_000)
    written(path, resume=True)
    assert path.read_bytes() == whole
    path.write_bytes(b"b" * 200_000)
    written(path, resume=True)
    assert path.read_bytes() == b""


def test_a_writer_begins_anew_or_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    written(path, "a.jpg", resume=True)
    written(path, "b.jpg", resume=True)
    assert jsonl.read_names(path) == {"a.jpg", "b.jpg"}
    written(path, "c.jpg")
    assert jsonl.read_names(path) == {"c.jpg"}
    assert jsonl.read_names(tmp_path / "none.jsonl") == set()


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "1", '{"image": 3, "detections": []}', '{"image": "a"}', "[" * 1_500, "\x00"],
    ids=lambda line: line[:12],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.jsonl"
    written(path, "a.jpg")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ArtifactError, match=r"results.jsonl, line 2: expected a record"):
        jsonl.read_names(path)


GOOD = {"label": 1, "category_id": 1, "name": "a", "score": 0.5, "box_xyxy": [0, 0, 1.5, 1]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"detections": [5]}, r"detections[0]: expected an object"),
        ({"detections": [GOOD, {"x": 1}]}, r"detections[1].label: expected a whole number"),
        ({"detections": [{**GOOD, "category_id": True}]}, ".category_id: expected a whole"),
        ({"detections": [{**GOOD, "name": None}]}, ".name: expected a text"),
        ({"detections": [{**GOOD, "score": float("nan")}]}, ".score: expected a number"),
        ({"detections": [{**GOOD, "box_xyxy": [1, 2, 3]}]}, ".box_xyxy: expected four numbers"),
        ({"detections": [{**GOOD, "box_xyxy": [1, 2, 3, "4"]}]}, ".box_xyxy: expected four"),
        ({"detections": [{**GOOD, "box_xyxy": [1, 2, 3, 10**400]}]}, ".box_xyxy: expected four"),
        ({"detections": [{**GOOD, "rle": "abc"}]}, ".rle: expected size and counts"),
        ({"detections": [{**GOOD, "keypoints": {"nose": [1, 2]}}]}, ".keypoints: expected three"),
        ({"detections": [{**GOOD, "keypoints": [1]}]}, ".keypoints: expected three"),
        ({"height": None}, "height: expected a whole number"),
        ({"image_id": "1"}, "image_id: expected a whole number"),
    ],
)
@pytest.mark.parametrize("module", [coco, rle_file], ids=["coco", "rle"])
def test_a_record_with_odd_content_is_named(
    tmp_path: Path, module: Any, change: dict[str, Any], says: str
) -> None:
    path, records = tmp_path / "results.json", tmp_path / "results.jsonl"
    written(records, "a.jpg")
    record = {"image": "b.jpg", "image_id": 1, "height": 4, "width": 4, "detections": [], **change}
    first = json.loads(records.read_text())
    records.write_text("".join(json.dumps(r) + "\n" for r in ({**first, "image_id": 0}, record)))
    with pytest.raises(ArtifactError) as caught:
        module.write_from_jsonl(path, records)
    assert str(caught.value).startswith(f"{records}, line 2 (b.jpg): ")
    assert says in str(caught.value)
    assert not path.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    with jsonl.Writer(path) as writer:
        writer.add("a.jpg", detections(2))
        whole = path.read_bytes()

        class Full:
            """A file on a disk that takes ten bytes more."""

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: bytes) -> int:
                return int(file.write(data[:10]))

        file = writer._file
        monkeypatch.setattr(writer, "_file", Full())
        with pytest.raises(ArtifactError, match=r"cannot write .*results.jsonl: 10 of"):
            writer.add("b.jpg", detections(2))
        assert path.read_bytes() == whole
        monkeypatch.setattr(writer, "_file", file)
        writer.add("c.jpg", detections(2))
    assert jsonl.read_names(path) == {"a.jpg", "c.jpg"}


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_of_no_file_is_refused(tmp_path: Path, resume: bool) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "results.jsonl"):
        with pytest.raises(ArtifactError, match="cannot write"):
            jsonl.Writer(path, resume=resume)


def test_records_that_coco_cannot_take_are_refused(tmp_path: Path) -> None:
    path, records = tmp_path / "results.json", tmp_path / "results.jsonl"
    path.write_text("old")
    written(records, "a.jpg")
    with pytest.raises(ArtifactError, match=r"a.jpg has no image_id"):
        coco.write_from_jsonl(path, records)
    with jsonl.Writer(records) as writer:
        writer.add("a.jpg", detections(), 3)
        writer.add("b.jpg", detections(), 3)
    with pytest.raises(ArtifactError, match=r"a.jpg and then b.jpg have image_id 3"):
        coco.write_from_jsonl(path, records)
    with pytest.raises(ArtifactError, match=r"cannot read .*No such file"):
        coco.write_from_jsonl(path, tmp_path / "none.jsonl")
    assert path.read_text() == "old"


def test_a_killed_run_leaves_at_most_one_torn_line(tmp_path: Path) -> None:
    """A child is killed while it writes; the file goes on from what it left."""
    path = tmp_path / "results.jsonl"
    code = (
        "import sys, itertools; from pathlib import Path;"
        "from runtime.formats import jsonl; from tests.runtime.test_formats import detections;"
        "writer, found = jsonl.Writer(Path(sys.argv[1])), detections(40);"
        "[writer.add(str(i), found) for i in itertools.count()]"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size > 200_000):
            assert time.monotonic() < deadline, "nothing was written"
            assert child.poll() is None
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    names = jsonl.read_names(path)
    assert names == {str(i) for i in range(len(names))}
    written(path, "last", resume=True)
    assert [found["image"] for found in jsonl.read(path)][-1] == "last"
    assert len(jsonl.read_names(path)) == len(names) + 1
