"""The proof: what stands in its rows, what has none, and what is said when it proves little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from calib.evaluation import rows
from calib.evaluation.candidate_session import session_of_file, session_of_model
from calib.evaluation.reference import open_reference
from calib.evaluation.rows import Evaluation
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from calib.quantizer import prepare
from calib.search import sensitivity
from export.onnx_file import read_onnx
from export.precision.session import EmulatedSession
from model.errors import ExportError, UsageError
from runtime.sessions.open import open_session
from tests.conftest import made_once

NEAREST = QuantizeOptions(rounding="nearest")


@pytest.fixture(scope="session")
def quantised(
    demo_onnx: Path,
    standard_table: Path,
    scenes: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    def make(path: Path) -> None:
        quantize(demo_onnx, scenes, path, replace(NEAREST, table=standard_table))

    return made_once(tmp_path_factory, "proofs.int8.onnx", make)


@pytest.mark.slow
def test_a_rest_in_halves_is_proved_under_emulation(
    demo_rtx_onnx: Path, native_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = replace(NEAREST, rest="fp16", table=native_table)
    output = tmp_path / "q.onnx"
    report = quantize(
        demo_rtx_onnx, scenes, output, options, evaluation=Evaluation(scenes[:1], None)
    )
    assert report.proofs is not None
    assert [row.title for row in report.proofs.rows][-1] == "INT8+FP16 (emulated)"
    job = prepare(
        read_onnx(demo_rtx_onnx), demo_rtx_onnx, native_table, scenes, options, lambda _: None
    )
    opened = [session_of_file(job, output), session_of_model(job, job.quantised(())[0])]
    assert all(isinstance(session, EmulatedSession) for session in opened)


def test_what_has_no_row_is_told_and_photos_without_objects_have_no_ap(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def does_not_fit(*_: object) -> None:
        raise ExportError("weight 'w': beyond 65504")

    monkeypatch.setattr(rows, "emulated_half", does_not_fit)
    monkeypatch.setattr("calib.evaluation.measure._RESAMPLES", 3)
    folder, labels, run = tmp_path / "photos", tmp_path / "a.json", tmp_path / "run"
    folder.mkdir()
    (folder / "plain.png").symlink_to(_plain(tmp_path))
    crowd = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 1,
        "segmentation": [[0, 0, 9, 0, 9, 9]],
    }  # fmt: skip
    image = {"id": 1, "file_name": "plain.png", "height": 64, "width": 96}
    labels.write_text(
        json.dumps({"images": [image], "annotations": [crowd], "categories": [{"id": 1}]})
    )
    broken = tmp_path / "0.png"
    broken.write_bytes(b"no photo")
    argv = [str(demo_onnx), str(broken), *map(str, scenes), "-o", str(tmp_path / "q.onnx")]
    argv += ["--rounding", "nearest", "--table", str(standard_table), "--run-dir", str(run)]
    argv += ["--eval-images", str(folder), "--annotations", str(labels)]
    assert main(argv) == 0
    told = capsys.readouterr()
    assert "FP16 (emulated): none, weight 'w': beyond 65504" in told.out
    assert "proof on 1 photos, agreement with 0 rows" in told.out
    assert "nothing to find" in told.out
    assert "agreement on fewer than 8 rows says nothing" in told.err
    # The first photo could not be used, so it is none to go on with.
    (following,) = [line for line in told.out.splitlines() if line.startswith("next:")]
    assert str(scenes[0]) in following
    document = json.loads((run / "quantize.json").read_text())
    assert set(document["evaluation_missing"]) == {"FP16 (emulated)", "BF16 (emulated)"}
    assert [row["title"] for row in document["evaluation"]] == ["FP32", "INT8"]
    changes = [change for row in document["evaluation"] for change in row["coco"]]
    assert len(changes) == 4
    assert all(change[name] is None for change in changes for name in ("ap", "change", "low"))


def _plain(folder: Path) -> Path:
    path = folder / "grey.png"
    Image.new("RGB", (96, 64), (90, 90, 90)).save(path)
    return path


def test_a_reference_that_lost_something_itself_is_none(demo_onnx: Path, quantised: Path) -> None:
    artifact = open_session(demo_onnx).artifact
    with pytest.raises(UsageError, match=r"its precision is int8.* give the FP32 file"):
        open_reference(quantised, artifact, 1)
    boxes = replace(artifact, spec=replace(artifact.spec, mask=None))
    with pytest.raises(UsageError, match="it has masks, the graph has no masks"):
        open_reference(demo_onnx, boxes, 1)
    open_reference(demo_onnx, artifact, 1).close()


def test_what_nothing_judges_is_not_risked_for_a_budget(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(read_onnx(demo_onnx), demo_onnx, standard_table, scenes, NEAREST, lambda _: None)
    heads = {str(one.node.name) for one in job.layers if one.role == "mask_head"}
    judged = {node for group in sensitivity.groups_in(job) for node in group.nodes}
    assert heads & judged
    monkeypatch.setattr(sensitivity, "UNJUDGED_ROLE", "mask_head")
    judged = {node for group in sensitivity.groups_in(job) for node in group.nodes}
    assert judged
    assert not heads & judged
