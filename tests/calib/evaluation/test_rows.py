"""The rows of an evaluation, those that are missing, and warnings about weak evidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from calib.context import RunContext
from calib.evaluation import rows
from calib.evaluation.half_emulation import open_file, open_graph
from calib.evaluation.photos import EvaluationSet
from calib.evaluation.reference import open_reference
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from calib.quantizer import prepare
from calib.search import sensitivity
from export.onnx_file import read_onnx
from export.precision.session import EmulatedSession
from model.errors import ExportError, UsageError
from tests.conftest import made_once

NEAREST = QuantizeOptions(rounding="nearest")


@pytest.fixture(scope="session")
def quantized(
    demo_onnx: Path,
    standard_table: Path,
    scenes: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    def make(path: Path) -> None:
        quantize(demo_onnx, scenes, path, replace(NEAREST, table=standard_table))

    return made_once(tmp_path_factory, "evaluated.int8.onnx", make)


@pytest.mark.slow
def test_fp16_layers_are_evaluated_under_emulation(
    demo_rtx_onnx: Path, native_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = replace(NEAREST, float_type="fp16", table=native_table)
    output = tmp_path / "q.onnx"
    photos = EvaluationSet(scenes[:1])
    report = quantize(demo_rtx_onnx, scenes, output, options, evaluation=photos)
    assert report.evaluation is not None
    assert [row.title for row in report.evaluation.rows][-1] == "INT8+FP16 (emulated)"
    quantizer = prepare(read_onnx(demo_rtx_onnx), scenes, native_table, options)
    model, context = quantizer.quantized(())[0], quantizer.context
    opened = [open_file(output, context), open_graph(model, context)]
    assert all(isinstance(session, EmulatedSession) for session in opened)


def test_missing_rows_are_reported_and_photos_without_detections_have_ap_0(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def does_not_fit(*_: object) -> None:
        raise ExportError("weight 'w': beyond 65504")

    monkeypatch.setattr(rows, "open_emulated", does_not_fit)
    monkeypatch.setattr("calib.evaluation.measure._RESAMPLES", 3)
    folder, labels, run = tmp_path / "photos", tmp_path / "a.json", tmp_path / "run"
    folder.mkdir()
    (folder / "plain.png").symlink_to(_plain(tmp_path))
    missed = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0,
        "segmentation": [[0, 0, 9, 0, 9, 9]],
    }  # fmt: skip
    image = {"id": 1, "file_name": "plain.png", "height": 64, "width": 96}
    labels.write_text(
        json.dumps({"images": [image], "annotations": [missed], "categories": [{"id": 1}]})
    )
    broken = tmp_path / "0.png"
    broken.write_bytes(b"no photo")
    argv = [str(demo_onnx), str(broken), *map(str, scenes), "-o", str(tmp_path / "q.onnx")]
    argv += ["--rounding", "nearest", "--table", str(standard_table), "--run-dir", str(run)]
    argv += ["--eval-images", str(folder), "--annotations", str(labels)]
    assert main(argv) == 0
    streams = capsys.readouterr()
    assert "FP16 (emulated): none, weight 'w': beyond 65504" in streams.out
    assert "1 categories are matched by id, since the file has no names for them" in streams.out
    assert "evaluation on 1 photo, agreement with 0 confident detections" in streams.out
    assert "agreement with fewer than 8 detections is meaningless" in streams.err
    # The first photo could not be used, so the next command has the second.
    (following,) = [line for line in streams.out.splitlines() if line.startswith("next:")]
    assert str(scenes[0]) in following
    document = json.loads((run / "quantize.json").read_text())
    assert set(document["evaluation_missing"]) == {"FP16 (emulated)", "BF16 (emulated)"}
    assert [row["title"] for row in document["evaluation"]] == ["FP32", "INT8"]
    changes = [change for row in document["evaluation"] for change in row["coco"]]
    assert len(changes) == 4
    assert all(change[name] == 0 for change in changes for name in ("ap", "change", "low"))


def _plain(folder: Path) -> Path:
    path = folder / "grey.png"
    Image.new("RGB", (96, 64), (90, 90, 90)).save(path)
    return path


def test_a_reference_must_be_fp32_and_have_the_same_outputs(
    demo_onnx: Path, quantized: Path
) -> None:
    def context(reference: Path) -> RunContext:
        options = QuantizeOptions(reference=reference, threads=1)
        return RunContext.of(read_onnx(demo_onnx), options)

    with pytest.raises(UsageError, match=r"its precision is int8.* use the FP32 file"):
        open_reference(context(quantized))
    same = context(demo_onnx)
    spec = replace(same.artifact.spec, mask=None)
    with pytest.raises(UsageError, match="it has masks, the graph has no masks"):
        open_reference(replace(same, artifact=replace(same.artifact, spec=spec)))
    open_reference(same).close()


def test_heads_that_are_not_scored_are_not_searched(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = prepare(read_onnx(demo_onnx), scenes, standard_table, NEAREST)
    heads = {one.name for one in quantizer.layers if one.role == "mask_head"}
    groups = sensitivity.searchable_groups(quantizer)
    assert heads & {node for group in groups for node in group.nodes}
    monkeypatch.setattr(sensitivity, "UNSCORED_ROLE", "mask_head")
    nodes = {n for group in sensitivity.searchable_groups(quantizer) for n in group.nodes}
    assert nodes
    assert not heads & nodes
