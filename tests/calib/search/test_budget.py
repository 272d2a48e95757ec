"""Groups of layers, their sensitivity, and the search within a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from calib.evaluation.agreement import Scores
from calib.evaluation.measure import interval, resampled
from calib.graph.groups import Group, groups_of
from calib.graph.layers import hidden_layers, weighted_layers
from calib.graph.presets import PRESETS, chosen_layers, stride_px
from calib.options import QuantizeOptions
from calib.quantize import main
from calib.quantizer import prepare
from calib.search import search, sensitivity
from calib.search.search import BudgetSearch, Candidate, search_budget
from calib.search.sensitivity import (
    GroupSensitivity,
    Recorder,
    Sensitivity,
    measure_sensitivity,
    sqnr_db,
)
from examples.shapes import make_scene
from export.onnx_file import read_onnx
from model.errors import ArtifactError, UsageError


def _scores(loss: float) -> Scores:
    return Scores(100.0 - loss, 100.0, 100.0, 100.0)


def test_every_hidden_layer_is_in_one_group(demo_onnx: Path) -> None:
    graph = ir.load(demo_onnx).graph
    hidden = hidden_layers(graph)
    groups = groups_of(graph, hidden)
    nodes = [name for group in groups for name in group.nodes]
    assert sorted(nodes) == sorted(str(layer.node.name) for layer in hidden)
    assert len({group.title for group in groups}) == len(groups)
    # ResNet-18: the stem, then two blocks a stride, the first of a stride with its projection.
    body = [group for group in groups if group.title.startswith("body")]
    assert [len(group.nodes) for group in body] == [1, 2, 2, 3, 2, 3, 2, 3, 2]
    # One set of weights, a group for each level that it runs on.
    rpn = [group for group in groups if group.title.startswith("rpn")]
    assert [len(group.nodes) for group in rpn] == [1] * 5


def test_presets_are_nested(demo_onnx: Path) -> None:
    layers = weighted_layers(ir.load(demo_onnx).graph)
    chosen = {p: {one.node for one in chosen_layers(layers, p)} for p in PRESETS}
    assert chosen["accurate"] < chosen["balanced"] < chosen["fast"]
    assert {one.role for one in layers if one.node in chosen["accurate"]} == {
        "box_head",
        "mask_head",
    }
    kept = [one for one in layers if one.node in chosen["fast"] - chosen["balanced"]]
    assert {stride_px(one.output) for one in kept} == {2, 4, 8}
    assert not any(one.is_predictor for one in layers if one.node in chosen["fast"])
    with pytest.raises(UsageError, match="--preset"):
        QuantizeOptions(preset="best")  # type: ignore[arg-type]


def _search(
    losses: list[float], allowed: float, monkeypatch: pytest.MonkeyPatch
) -> tuple[BudgetSearch, list[int]]:
    """A search where the loss is the sum of the quantized groups'; and what it tried, in order."""
    ranked = tuple(
        GroupSensitivity(Group(str(i), frozenset({str(i)})), _scores(loss), 30.0, 1 / len(losses))
        for i, loss in enumerate(losses)
    )
    tried: list[int] = []

    def candidate(quantizer: None, sensitivity: Sensitivity, kept: int, *_: object) -> Candidate:
        tried.append(kept)
        nodes = frozenset(one.group.title for one in sensitivity.ranked[kept:])
        return Candidate(kept, len(nodes) / len(losses), _scores(sum(losses[kept:])), nodes)

    monkeypatch.setattr(search, "_candidate", candidate)
    return search_budget(None, Sensitivity(ranked, []), [], [], allowed), tried  # type: ignore[arg-type]


@pytest.mark.parametrize("allowed", [0.5, 1.0, 3.0, 7.0, 14.95, 100.0])
def test_the_fewest_groups_are_kept(allowed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [8.0, 4.0, 2.0, 0.5, 0.3, 0.1, 0.0]
    result, tried = _search(losses, allowed, monkeypatch)
    expected = next(k for k in range(len(losses)) if sum(losses[k:]) <= allowed)
    assert result.chosen.kept == expected
    assert result.chosen.scores.loss <= allowed + 1e-9
    assert [one.kept for one in result.candidates] == sorted(tried)
    assert len(set(tried)) == len(tried) <= search.most_candidates(len(losses))


def test_a_budget_that_cannot_be_met(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArtifactError, match=r"--budget 0.1: .* 2.00 points"):
        _search([8.0, 2.0], 0.1, monkeypatch)


def test_signal_over_noise() -> None:
    exact, other = Recorder(), Recorder()
    values = np.random.default_rng(0).standard_normal((4, 50)).astype(np.float32)
    exact.record("a", values)
    other.record("a", values * np.float32(1.1))
    assert sqnr_db(exact, other, ["a"]) == pytest.approx(20.0, abs=1e-3)
    assert sqnr_db(exact, exact, ["a"]) == math.inf
    assert sqnr_db(exact, other, ["b"]) is None
    shorter = Recorder()
    shorter.record("a", values[:2])
    assert sqnr_db(exact, shorter, ["a"]) is None


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    low, high = interval(lambda chosen: float(values[list(chosen)].mean()), 400, 500)
    half = 1.96 / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_a_photo_drawn_twice_counts_twice() -> None:
    truth = {
        "images": [{"id": 7, "file_name": "a/b.jpg"}, {"id": 9, "file_name": "c.jpg"}],
        "annotations": [{"id": 1, "image_id": 7}, {"id": 2, "image_id": 9}],
        "categories": [{"id": 1}],
    }
    drawn = resampled(truth, [7, 7, 9])
    assert [image["id"] for image in drawn["images"]] == [1, 2, 3]
    assert [a["image_id"] for a in drawn["annotations"]] == [1, 2, 3]
    assert len({a["id"] for a in drawn["annotations"]}) == 3


def _labels(folder: Path, scenes: list[Path]) -> Path:
    """COCO annotations of the scenes' boxes."""
    images, annotations = [], []
    for number, path in enumerate(scenes):
        images.append({"id": number, "file_name": path.name, "height": 240, "width": 320})
        scene = make_scene((7, number), (240, 320), 6)
        for label, mask in zip(scene.labels.tolist(), scene.masks, strict=True):
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            outline = [box[0], box[1], box[0] + box[2], box[1], box[0], box[1] + box[3]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "bbox": [float(n) for n in box],
                    "area": float(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": [[float(n) for n in outline]],
                }
            )
    categories = [{"id": label, "name": str(label)} for label in range(1, 9)]
    path = folder / "labels.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.mark.slow
def test_the_command_within_a_budget(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(search, "PHOTOS", 2)
    monkeypatch.setattr("calib.calibration.run.PHOTOS", 2)
    monkeypatch.setattr("calib.evaluation.measure._RESAMPLES", 3)
    argv = [str(demo_onnx), *map(str, scenes), "-o", str(tmp_path / "q.onnx")]
    argv += ["--table", str(standard_table), "--budget", "6", "--reference", str(demo_onnx)]
    argv += ["--eval-images", str(scenes[0].parent), "--run-dir", str(tmp_path / "run")]
    argv += ["--annotations", str(_labels(tmp_path, scenes))]
    assert main(argv) == 0
    output = capsys.readouterr().out
    document = json.loads((tmp_path / "run" / "quantize.json").read_text())
    kept = {one["kept"]: one for one in document["ladder"]}
    chosen = kept[document["chosen"]]
    assert min(chosen["box"], chosen["mask"]) >= 94.0
    assert chosen["share_in_8_bits"] == pytest.approx(document["share_in_8_bits"])
    assert len(document["sensitivity"]) == 26  # no kernel for the deconvolution
    titles = [row["title"] for row in document["evaluation"]]
    assert [title.split(",")[0].split()[0] for title in titles] == [
        "FP32", "FP16", "BF16", "INT8", "INT8",
    ]  # fmt: skip
    exact = document["evaluation"][0]
    assert exact["agreement"]["box"] == 100.0
    assert all(change["change"] == 0.0 for change in exact["coco"])
    assert all(row["agreement"]["box"] > 80.0 for row in document["evaluation"])
    for picture in ("sensitivity.png", "ladder.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in output


def test_known_groups_are_not_measured_again(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = QuantizeOptions(rounding="nearest", threads=1)
    quantizer = prepare(read_onnx(demo_onnx), scenes, standard_table, options)
    few = sensitivity.searchable_groups(quantizer)[-3:]
    monkeypatch.setattr(sensitivity, "searchable_groups", lambda _: few)
    measured: list[GroupSensitivity] = []
    done: list[int] = []
    quantizer.context.advance = done.append
    photos = quantizer.photos[:1]
    whole = measure_sensitivity(quantizer, photos, on_group=measured.append)
    assert {one.group.nodes for one in measured} == {group.nodes for group in few}
    assert sum(done) == 4
    again: list[GroupSensitivity] = []
    resumed = measure_sensitivity(quantizer, photos, measured[:2], again.append)
    assert [one.group for one in again] == [few[2]]
    assert [one.group for one in resumed.ranked] == [one.group for one in whole.ranked]
    assert sum(done) == 8
