"""What a selection keeps, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.errors import UsageError
from model.spec import ClassSpec, MaskHeadSpec, ModelSpec, ResNetSpec
from runtime.detections import Detections
from runtime.selection import Selection, parse_score_threshold

SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_resnet50_fpn",
    body=ResNetSpec((3, 4, 6, 3), "bottleneck", 64, (64, 128, 256, 512), (256, 512, 1024, 2048)),
    classes=ClassSpec(("background", "person", "dog", "cow")),
    mask=MaskHeadSpec(),
)
NAMES = ("dog", "person", "cow", "person", "dog", "person")
SCORES = (0.9, 0.7, 0.7, 0.3, 0.7, 0.2)


def sample_detections(masks: bool = True) -> Detections:
    """Six rows that do not come best first, their boxes 10, 20, ... wide and 10 high."""
    width = 10 * np.arange(1, 7, dtype=np.float32)
    zero = np.zeros(6, np.float32)
    return Detections(
        boxes=np.stack((zero, zero, width, zero + 10), axis=1),
        scores=np.array(SCORES, np.float32),
        labels=np.array([SPEC.classes.names.index(name) for name in NAMES]),
        names=NAMES,
        mask_probs=np.full((6, 28, 28), 0.6, np.float32) if masks else None,
        image_hw=(40, 80),
        first_class=1,
        keypoints=np.arange(6 * 2 * 3, dtype=np.float32).reshape(6, 2, 3),
        keypoint_names=("head", "tail"),
        dataset_ids=np.arange(100, 106),
    )


def detections_of_the_model() -> Detections:
    return replace(sample_detections(), class_names=SPEC.classes.names[1:])


def rows(selection: Selection, detections: Detections | None = None) -> list[int]:
    """Ids of the selected rows, whose fields must be unchanged."""
    whole = detections or sample_detections()
    part = whole.select(selection)
    kept = (part.dataset_ids - 100).tolist()
    expected = whole.take(kept)
    for name in ("boxes", "scores", "labels", "keypoints"):
        np.testing.assert_array_equal(getattr(part, name), getattr(expected, name))
    assert part.names == expected.names
    return list(kept)


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (Selection(), [0, 1, 2, 3, 4, 5]),
        (Selection(score_threshold=0.7), [0, 1, 2, 4]),
        (Selection(score_threshold=0.70001), [0]),
        (Selection(score_threshold=1.0), []),
        (Selection(score_threshold={"person": 0.3}), [0, 1, 2, 3, 4]),
        (Selection(score_threshold={"*": 0.7, "person": 0.25}), [0, 1, 2, 3, 4]),
        (Selection(score_threshold={"*": 0.8}), [0]),
        (Selection(score_threshold={}), [0, 1, 2, 3, 4, 5]),
        (Selection(classes=["person"]), [1, 3, 5]),
        pytest.param(Selection(classes={"cow", "dog"}), [0, 2, 4], id="a set of classes"),
        (Selection(top_k=1), [0]),
        (Selection(top_k=3), [0, 1, 2]),
        (Selection(top_k=4), [0, 1, 2, 4]),
        (Selection(top_k=99), [0, 1, 2, 3, 4, 5]),
        (Selection(top_k=2, classes=["person"]), [1, 3]),
        (Selection(top_k=1, classes=["person"], score_threshold={"person": 0.1}), [1]),
        (Selection(top_k=1, min_area_px=400), [4]),
    ],
    ids=str,
)
def test_rows_kept_in_their_order(selection: Selection, kept: list[int]) -> None:
    assert rows(selection) == kept


@pytest.mark.parametrize("score", [0.1, 0.3, 0.55, 0.7, 1 / 3])
def test_a_global_threshold_keeps_equal_scores(score: float) -> None:
    rng = np.random.default_rng(1)
    whole = replace(
        sample_detections(), scores=np.append(rng.random(5, np.float32), np.float32(score))
    )
    part = whole.select(Selection(score_threshold=score))
    np.testing.assert_array_equal(part.scores, whole.scores[whole.scores >= score])
    assert np.float32(score) in part.scores


def test_areas_of_masks_and_boxes() -> None:
    whole = sample_detections()
    pixels = whole.masks.sum(axis=(1, 2)).astype(float)
    np.testing.assert_array_equal(whole.areas(), pixels)
    assert not np.array_equal(pixels, sample_detections(masks=False).areas())
    assert rows(Selection(min_area_px=float(pixels[2]))) == [2, 3, 4, 5]
    assert rows(Selection(min_area_px=float(pixels[2]) + 1)) == [3, 4, 5]
    whole = sample_detections(masks=False)
    outside = whole.boxes.copy()
    outside[5] = (-50, -50, 4, 5)
    outside[4] = (90, 10, 120, 20)
    outside[3] = (30, 30, 20, 35)
    moved = replace(whole, boxes=outside)
    np.testing.assert_array_equal(moved.areas(), [100, 200, 300, 0, 0, 20])
    assert rows(Selection(min_area_px=200), moved) == [1, 2]
    part = sample_detections().select(Selection(mask_threshold=0.65, min_area_px=1))
    assert (part.mask_threshold, len(part)) == (0.65, 0)
    part = sample_detections().select(Selection(mask_threshold=0.55))
    assert (part.mask_threshold, part.masks.any()) == (0.55, True)


def test_nothing_to_select_from() -> None:
    none = sample_detections().take([])
    everything = Selection({"*": 0.5, "dog": 0.9}, 0.4, 3, ["dog"], 10)
    assert len(none.select(everything)) == 0
    assert len(sample_detections().select(Selection(classes=["horse"]))) == 0


def test_classes_that_the_model_does_not_have(subtests: pytest.Subtests) -> None:
    for wanted, message in [
        ({"classes": ["persn"]}, r"classes: .* no class 'persn'; closest: person"),
        ({"classes": ["Dog"]}, "closest: dog"),
        ({"classes": ["xyzzy"]}, "it has person, dog, cow"),
        ({"classes": ["background"]}, "no class 'background'"),
        ({"score_threshold": {"horse": 0.5}}, "score threshold: .* no class 'horse'"),
    ]:
        with subtests.test(message):
            with pytest.raises(UsageError, match=message):
                Selection(**wanted).check(SPEC)
            with pytest.raises(UsageError, match=message):
                detections_of_the_model().select(Selection(**wanted))


def test_a_threshold_below_the_exported_one(subtests: pytest.Subtests) -> None:
    for threshold, message in [
        (0.01, "score threshold 0.01 is below the exported 0.05; .* --score-threshold 0.01"),
        (
            {"dog": 0.01},
            "score threshold of dog 0.01 is below .* export with --score-threshold 0.01",
        ),
    ]:
        with subtests.test(message), pytest.raises(UsageError, match=message):
            Selection(threshold).check(SPEC)


def test_invalid_selections_are_refused(subtests: pytest.Subtests) -> None:
    for wanted, message in [
        ({"classes": "person"}, "classes: expected a list of names, got 'person'"),
        ({"classes": 5}, "classes: expected a list of names, got 5"),
        ({"classes": np.array("dog")}, "classes: expected a list of names, got array"),
        ({"classes": np.array([["dog", "cow"]])}, "classes: expected names of classes, got array"),
        ({"classes": ["dog", 5]}, "classes: expected names of classes, got 5"),
        ({"classes": []}, "at least one name"),
        ({"classes": (name for name in ())}, "at least one name"),
        ({"score_threshold": {5: 0.5}}, "score threshold: expected names of classes, got 5"),
        ({"score_threshold": 1.5}, "expected 0 to 1, got 1.5"),
        ({"score_threshold": float("nan")}, "expected a number, got nan"),
        ({"score_threshold": {"*": "0.5"}}, "expected a number, got '0.5'"),
        ({"score_threshold": {"dog": -1}}, "score threshold of dog: expected 0 to 1, got -1"),
        ({"score_threshold": True}, "expected a number, got True"),
        ({"mask_threshold": 0.0}, "mask threshold: expected a number between 0 and 1, got 0"),
        ({"mask_threshold": 1.0}, "between 0 and 1, got 1"),
        ({"mask_threshold": 5}, "between 0 and 1, got 5"),
        ({"top_k": 0}, "top-k: expected a whole number from 1, got 0"),
        ({"top_k": -1}, "top-k: expected a whole number from 1, got -1"),
        ({"top_k": 2.5}, "top-k: expected a whole number"),
        ({"top_k": True}, "top-k: expected a whole number"),
        ({"top_k": "3"}, "top-k: expected a whole number from 1, got '3'"),
        ({"min_area_px": -1}, "minimum area: expected 0 or more"),
        ({"min_area_px": float("inf")}, "minimum area: expected a number"),
        ({"min_area_px": 10**400}, "minimum area: expected a number"),
    ]:
        with subtests.test(message), pytest.raises(UsageError, match=message):
            Selection(**wanted)


def test_classes_from_whatever_gives_names(subtests: pytest.Subtests) -> None:
    for case, classes in [
        ("generator", (n for n in ("dog", "cow"))),
        ("array", np.array(["dog", "cow"])),
        ("mapping", {"dog": 1, "cow": 2}),
        ("iterator", iter(["dog", "cow"])),
    ]:
        with subtests.test(case):
            selection = Selection(classes=classes)
            selection.check(SPEC)
            assert selection.classes == ("dog", "cow")
            assert [type(name) for name in selection.classes] == [str, str]
            for _ in range(2):
                assert rows(selection) == [0, 2, 4]


def test_classes_and_masks_that_the_model_lacks() -> None:
    with pytest.raises(UsageError, match="this model has no masks"):
        Selection(mask_threshold=0.5).check(replace(SPEC, mask=None))
    with pytest.raises(UsageError, match="this model has no masks"):
        sample_detections(masks=False).select(Selection(mask_threshold=0.5))
    last = replace(
        SPEC, classes=ClassSpec(("person", "dog")), box=replace(SPEC.box, background="last")
    )
    Selection(classes=["person"]).check(last)
    with pytest.raises(UsageError, match="'cow'"):
        Selection(classes=["cow"]).check(last)


def test_valid_selections_pass(subtests: pytest.Subtests) -> None:
    for selection in [
        Selection(),
        Selection(0.05, 0.3, 1, ["dog", "person"], 0),
        Selection({"*": 0.5, "dog": 1}, top_k=np.int64(3)),  # type: ignore[arg-type]
        Selection(np.float32(0.5)),  # type: ignore[arg-type]
    ]:
        with subtests.test(selection=selection):
            selection.check(SPEC)
            assert len(sample_detections().select(selection)) <= 6


def test_thresholds_are_read(subtests: pytest.Subtests) -> None:
    for text, expected in [
        ("0.5", 0.5),
        ("0.5,person=0.7", {"*": 0.5, "person": 0.7}),
        ("person=0.7,0.5", {"*": 0.5, "person": 0.7}),
        ("traffic light=0.7,dog=.25", {"traffic light": 0.7, "dog": 0.25}),
        ("a=b=0.5", {"a=b": 0.5}),
        ("*=0.5", 0.5),
    ]:
        with subtests.test(text=text):
            assert parse_score_threshold(text) == expected


def test_other_thresholds_are_refused(subtests: pytest.Subtests) -> None:
    for text, message in [
        ("", "for instance"),
        ("high", "got 'high'"),
        ("person", "for instance 0.5 or 0.5,person=0.7"),
        ("person=", "for instance"),
        ("0.5,", "for instance"),
        ("0.5,0.6", "a threshold without a name once"),
        ("dog=0.5,dog=0.6", "expected dog once"),
    ]:
        with subtests.test(message), pytest.raises(UsageError, match=message):
            parse_score_threshold(text)


def test_equal_selections() -> None:
    fields: dict[str, Any] = {"score_threshold": 0.5, "top_k": 2}
    assert Selection(**fields) == Selection(0.5, None, 2)
    thresholds = {"dog": 0.8}
    selection = Selection(thresholds)
    thresholds["dog"] = float("nan")
    assert selection.score_threshold == {"dog": 0.8}
