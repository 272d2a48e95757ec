"""JSON Lines, and the COCO and run-length files made from them, read back by their readers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
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

ROOT = Path(__file__).resolve().parents[3]
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
        dataset_ids=np.array([CLASSES.dataset_id(label) for label in labels], np.int64),
    )


def write_records(
    path: Path, images: Iterable[tuple[str, Detections]], first_id: int | None = None
) -> Path:
    with jsonl.Writer(path) as writer:
        for index, (name, result) in enumerate(images):
            writer.add(name, result, None if first_id is None else first_id + index)
    return path


def append(path: Path, *names: str, resume: bool = False) -> None:
    with jsonl.Writer(path, resume=resume) as writer:
        for name in names:
            writer.add(name, detections(2))


def test_coco_rows_of_any_result_with_labels() -> None:
    """An eager model's result has labels and pasted masks, but neither names nor category ids."""
    pytest.importorskip("pycocotools")
    ours = detections()
    masks = ours.masks
    assert masks is not None
    eager = EagerDetections(
        ours.boxes, ours.scores, ours.labels, ours.mask_probs, np.packbits(masks, -1), (90, 120)
    )
    assert coco.rows_by_class(eager, 3, CLASSES) == coco.rows(ours, 3)


def test_pycocotools_reads_the_coco_file(tmp_path: Path) -> None:
    coco_api = pytest.importorskip("pycocotools.coco")
    images = [
        ("a.jpg", detections(seed=1)),
        ("b.jpg", detections(0)),
        ("c.jpg", detections(seed=2)),
    ]
    records = write_records(tmp_path / "results.jsonl", images, first_id=7)
    path = tmp_path / "results.json"
    coco.write_from_jsonl(path, records)
    ids = range(7, 10)
    assert json.loads(path.read_text()) == [
        row for image_id, (_, result) in zip(ids, images, strict=True)
        for row in coco.rows(result, image_id)
    ]  # fmt: skip
    truth = coco_api.COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 90, "width": 120} for i in ids],
        "categories": [{"id": i} for i in CLASSES.dataset_ids],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(str(path))
    for image_id, (_, expected) in zip(ids, images, strict=True):
        rows = loaded.loadAnns(loaded.getAnnIds(imgIds=[image_id]))
        assert [row["category_id"] for row in rows] == expected.dataset_ids.tolist()
        for row, mask in zip(rows, expected.masks, strict=True):
            np.testing.assert_array_equal(loaded.annToMask(row), mask)


def test_coco_numbers_and_empty_files(tmp_path: Path) -> None:
    result = detections(50)
    rows = json.loads(json.dumps(coco.rows(result, 3)))
    assert [row["image_id"] for row in rows] == [3] * 50
    scores = np.array([row["score"] for row in rows], np.float32)
    np.testing.assert_array_equal(scores, result.scores)
    xywh = np.array([row["bbox"] for row in rows])
    xyxy = np.concatenate((xywh[:, :2], xywh[:, :2] + xywh[:, 2:]), axis=1)
    np.testing.assert_array_equal(xyxy.astype(np.float32), result.boxes)
    coco.write_from_jsonl(tmp_path / "a.json", write_records(tmp_path / "a.jsonl", []))
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_box_only_models_have_no_masks_in_either_format() -> None:
    result = detections(masks=False)
    assert [sorted(row) for row in coco.rows(result, 3)] == [
        ["bbox", "category_id", "image_id", "score"]
    ] * 4
    assert [sorted(row) for row in jsonl.record("a.jpg", result)["detections"]] == [
        ["box_xyxy", "category_id", "label", "name", "score"]
    ] * 4


def test_jsonl_has_one_line_per_image(tmp_path: Path) -> None:
    awkward = "фото \u2028 \udcff\n.jpg"
    images = [(awkward, detections()), ("b.jpg", replace(detections(0), exact=True))]
    path = write_records(tmp_path / "results.jsonl", images)
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    first, second = map(json.loads, lines)
    assert first["image"] == awkward
    assert (first["height"], first["width"], first["exact"]) == (90, 120, False)
    assert second == {"image": "b.jpg", "height": 90, "width": 120, "exact": True, "detections": []}


def test_jsonl_numbers_restore_every_bit() -> None:
    result = detections()
    rows = json.loads(json.dumps(jsonl.record("a.jpg", result)))["detections"]
    boxes = np.array([row["box_xyxy"] for row in rows], np.float32)
    np.testing.assert_array_equal(boxes, result.boxes)
    np.testing.assert_array_equal(np.array([row["score"] for row in rows], "f4"), result.scores)
    assert [row["label"] for row in rows] == result.labels.tolist()
    assert tuple(row["name"] for row in rows) == result.names
    for row, mask in zip(rows, result.masks, strict=True):
        np.testing.assert_array_equal(rle.decode(row["rle"]), mask)


def test_pycocotools_decodes_the_run_lengths(tmp_path: Path) -> None:
    coco_mask = pytest.importorskip("pycocotools.mask")
    first, path = detections(), tmp_path / "rle.json"
    images = [("a.jpg", first), ("é\n.jpg", detections(0))]
    rle_file.write_from_jsonl(path, write_records(tmp_path / "results.jsonl", images))
    content = json.loads(path.read_text())
    assert content["é\n.jpg"] == {"size": [90, 120], "detections": []}
    assert content["a.jpg"]["size"] == [90, 120]
    for row, (mask, name) in enumerate(zip(first.masks, first.names, strict=True)):
        entry = content["a.jpg"]["detections"][row]
        assert set(entry) == {"category", "score", "rle"}
        assert entry["category"] == name
        np.testing.assert_array_equal(coco_mask.decode(entry["rle"]), mask)


def test_run_lengths_need_masks_and_distinct_names(tmp_path: Path) -> None:
    path, records = tmp_path / "rle.json", tmp_path / "results.jsonl"
    path.write_text("old")
    write_records(records, [("a.jpg", detections(masks=False))])
    with pytest.raises(ArtifactError, match=r"a.jpg has detections without masks; .* save json"):
        rle_file.write_from_jsonl(path, records)
    write_records(records, [("a.jpg", detections())] * 2)
    with pytest.raises(ArtifactError, match=r"two images are named a.jpg"):
        rle_file.write_from_jsonl(path, records)
    assert path.read_text() == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"rle.json", "results.jsonl"}


def test_a_partial_line_of_any_length_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, "a.jpg", "b.jpg")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in (0, 1, first - 1, first, first + 1, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        names = ["a.jpg", "b.jpg"][: whole[:size].count(b"\n")]
        assert jsonl.read_names(path) == set(names)
        append(path, "c.jpg", resume=True)
        assert [record["image"] for record in jsonl.read(path)] == [*names, "c.jpg"]
    append(path, "a.jpg")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"image": "' + b"b" * 200_000)
    append(path, resume=True)
    assert path.read_bytes() == whole
    path.write_bytes(b"b" * 200_000)
    append(path, resume=True)
    assert path.read_bytes() == b""


def test_a_writer_starts_over_or_resumes(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, "a.jpg", resume=True)
    append(path, "b.jpg", resume=True)
    assert jsonl.read_names(path) == {"a.jpg", "b.jpg"}
    append(path, "c.jpg")
    assert jsonl.read_names(path) == {"c.jpg"}
    assert jsonl.read_names(tmp_path / "none.jsonl") == set()
    with jsonl.Writer(path) as writer:
        for count in range(1, 4):
            writer.add(f"{count}.jpg", detections(count))
            assert len(list(jsonl.read(path))) == count
    assert jsonl.read_names(path) == {"1.jpg", "2.jpg", "3.jpg"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        *[(line, "expected a record") for line in ("", "{", "[]", "1", '{"image": 3}', "\x00")],
        pytest.param("[" * 1_500, "expected a record", id="deep"),
        ('{"image": "a"}', r"detections: expected a list"),
    ],
)
def test_a_line_that_is_not_a_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "results.jsonl"
    append(path, "a.jpg")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ArtifactError, match=rf"results.jsonl, line 2.*: {message}"):
        jsonl.read_names(path)


GOOD = {"label": 1, "category_id": 1, "name": "a", "score": 0.5, "box_xyxy": [0, 0, 1.5, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detections": [5]}, r"detections[0]: expected an object"),
        ({"detections": [GOOD, {"x": 1}]}, r"detections[1].label: expected an integer"),
        ({"detections": [{**GOOD, "category_id": True}]}, ".category_id: expected an integer"),
        ({"detections": [{**GOOD, "name": None}]}, ".name: expected a string"),
        ({"detections": [{**GOOD, "score": float("nan")}]}, ".score: expected a number"),
        ({"detections": [{**GOOD, "box_xyxy": [1, 2, 3]}]}, ".box_xyxy: expected four numbers"),
        ({"detections": [{**GOOD, "box_xyxy": [1, 2, 3, "4"]}]}, ".box_xyxy: expected four"),
        ({"detections": [{**GOOD, "box_xyxy": [1, 2, 3, 10**400]}]}, ".box_xyxy: expected four"),
        ({"detections": [{**GOOD, "rle": "abc"}]}, ".rle: expected size and counts"),
        ({"detections": [{**GOOD, "keypoints": {"nose": [1, 2]}}]}, ".keypoints: expected three"),
        ({"detections": [{**GOOD, "keypoints": [1]}]}, ".keypoints: expected three"),
        ({"height": None}, "height: expected an integer"),
        ({"image_id": "1"}, "image_id: expected an integer"),
    ],
)
@pytest.mark.parametrize("module", [coco, rle_file], ids=["coco", "rle"])
def test_a_record_with_a_bad_field_is_named(
    tmp_path: Path, module: Any, change: dict[str, Any], message: str
) -> None:
    path, records = tmp_path / "results.json", tmp_path / "results.jsonl"
    append(records, "a.jpg")
    record = {"image": "b.jpg", "image_id": 1, "height": 4, "width": 4, "detections": [], **change}
    first = json.loads(records.read_text())
    records.write_text("".join(json.dumps(r) + "\n" for r in ({**first, "image_id": 0}, record)))
    with pytest.raises(ArtifactError) as caught:
        module.write_from_jsonl(path, records)
    assert str(caught.value).startswith(f"{records}, line 2 (b.jpg): ")
    assert message in str(caught.value)
    assert not path.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.jsonl"
    with jsonl.Writer(path) as writer:
        writer.add("a.jpg", detections(2))
        whole = path.read_bytes()

        class Full:
            """A file on a disk with ten bytes left."""

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
def test_a_writer_needs_a_file(tmp_path: Path, resume: bool) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "results.jsonl"):
        with pytest.raises(ArtifactError, match="cannot write"):
            jsonl.Writer(path, resume=resume)


def test_records_without_usable_image_ids_are_refused(tmp_path: Path) -> None:
    path, records = tmp_path / "results.json", tmp_path / "results.jsonl"
    path.write_text("old")
    append(records, "a.jpg")
    with pytest.raises(ArtifactError, match=r"a.jpg has no image_id"):
        coco.write_from_jsonl(path, records)
    with jsonl.Writer(records) as writer:
        writer.add("a.jpg", detections(), 3)
        writer.add("b.jpg", detections(), 3)
    with pytest.raises(ArtifactError, match=r"a.jpg and then b.jpg have image_id 3"):
        coco.write_from_jsonl(path, records)
    with pytest.raises(ArtifactError, match=r"cannot read .*No such file"):
        coco.write_from_jsonl(path, tmp_path / "none.jsonl")
    with pytest.raises(ArtifactError, match=r"cannot write .*No such file"):
        coco.write_from_jsonl(tmp_path / "nowhere" / "results", records)
    assert path.read_text() == "old"


def test_a_killed_run_leaves_at_most_one_partial_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    code = (
        "import sys, itertools; from pathlib import Path;"
        "from runtime.formats import jsonl;"
        "from tests.runtime.formats.test_records import detections;"
        "writer, result = jsonl.Writer(Path(sys.argv[1])), detections(40);"
        "[writer.add(str(i), result) for i in itertools.count()]"
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
    append(path, "last", resume=True)
    assert [record["image"] for record in jsonl.read(path)][-1] == "last"
    assert len(jsonl.read_names(path)) == len(names) + 1
