"""The exported file: fixed sizes, metadata, and the check against the eager model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import export.onnx as export_command
from export import tracing
from export.onnx import SAMPLE_PHOTO, export_onnx
from export.parity.torchvision_reference import TorchvisionEager
from export.roles import ROLE_KEY
from export.tracing import GraphShape
from model.checkpoint import Checkpoint, SpecOptions, load
from model.errors import ExportError, SpecError
from runtime.compare.attribution import explain
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.predictor import Predictor
from runtime.preprocessing.canvas import to_canvas
from runtime.sources.photos import decode
from tests.lively import picture

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples" / "demo" / "shapes.pth"
OPTIONS = SpecOptions(short_side=320, long_side=533)


@pytest.mark.parametrize("traced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_fixed_canvas_and_batch(
    traced: bool,
    demo_onnx: Path,
    demo_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sizes are declared on a graph that is traced with dynamic ones: the session's."""
    path, canvas = tmp_path / "fixed.onnx", (320, 448)
    if not traced:
        monkeypatch.setattr(tracing, "_standard", lambda *_: ir.load(demo_onnx))
    report = export_onnx(WEIGHTS, path, OPTIONS, GraphShape(2, *canvas))
    assert report.check is not None
    assert report.check.verdict.passed
    inputs = ort.InferenceSession(path).get_inputs()
    assert [i.shape for i in inputs] == [[2, 3, 320, 448], [2, 2]]
    photos = [decode(SAMPLE_PHOTO), picture(500, 300, 1), picture(60, 400, 2)]
    with Predictor.open(path) as predictor:
        results = predictor.predict(photos)
    eager = TorchvisionEager(demo_checkpoint, canvas)
    runs = [eager.run(photo) for photo in photos]
    pairs = zip(runs, results, strict=True)
    compared = [compare(r.detections, d, str(i)) for i, (r, d) in enumerate(pairs)]
    verdict = explain(check(compared), compared, lambda name: runs[int(name)].trace)
    assert verdict.detections >= 40
    assert verdict.passed, "\n".join(map(str, [verdict, *verdict.excesses]))


def test_the_file_names_no_machine_and_every_node_has_a_role(demo_onnx: Path) -> None:
    content = demo_onnx.read_bytes()
    for leak in (str(ROOT), str(Path.home()), "stack_trace", "fx_node"):
        assert leak.encode() not in content
    roles = {
        prop.value
        for node in onnx.load(demo_onnx).graph.node
        for prop in node.metadata_props
        if prop.key == ROLE_KEY
    }
    assert roles == {
        "normalise", "body", "fpn", "rpn", "box_pool", "box_head", "select", "mask_pool",
        "mask_head", "outputs",
    }  # fmt: skip
    assert all(
        any(p.key == ROLE_KEY for p in node.metadata_props)
        for node in onnx.load(demo_onnx).graph.node
    )


def test_the_version_of_the_format_is_the_lowest_of_its_opset(demo_onnx: Path) -> None:
    """Otherwise runtimes that have all operators refuse the file."""
    model = onnx.load(demo_onnx)
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)


def _with_output(path: Path, target: Path, pick: Callable[[onnx.NodeProto], bool]) -> str:
    """Copy a file with one inner value as a further output."""
    model = onnx.load(path)
    name = next(node.output[0] for node in model.graph.node if pick(node))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    onnx.save(model, target)
    return name


def test_the_mask_head_runs_on_valid_rows_only(
    demo_onnx: Path, demo_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def is_mask_conv(node: onnx.NodeProto) -> bool:
        role = next((p.value for p in node.metadata_props if p.key == ROLE_KEY), "")
        return node.op_type == "Conv" and role == "mask_head"

    watched = tmp_path / "watched.onnx"
    name = _with_output(demo_onnx, watched, is_mask_conv)
    session = ort.InferenceSession(watched)
    photos = [decode(SAMPLE_PHOTO), np.zeros((240, 320, 3), np.uint8)]
    canvas = to_canvas(photos, demo_checkpoint.spec.preprocess)
    feed = {"images": canvas.images, "image_hw": canvas.image_hw}
    rows, counts, masks = session.run([name, "counts", "masks"], feed)
    assert 0 < counts.sum() < 200
    # The first row is always computed, filled or not.
    assert len(rows) == counts.sum() + (counts[0] == 0)
    for image, count in enumerate(counts):
        assert masks[image, :count].any(axis=(1, 2)).all()
        assert not masks[image, count:].any()


def test_the_padding_is_ignored(demo_onnx: Path, demo_checkpoint: Checkpoint) -> None:
    session = ort.InferenceSession(demo_onnx)
    canvas = to_canvas([decode(SAMPLE_PHOTO)], demo_checkpoint.spec.preprocess)
    height, width = canvas.image_hw[0].astype(int)
    assert (height, width) != canvas.images.shape[2:]
    noisy = np.random.default_rng(0).normal(0, 50, canvas.images.shape).astype(np.float32)
    noisy[:, :, :height, :width] = canvas.images[:, :, :height, :width]
    clean = session.run(None, {"images": canvas.images, "image_hw": canvas.image_hw})
    same = session.run(None, {"images": noisy, "image_hw": canvas.image_hw})
    for a, b in zip(clean, same, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_few_detections_lower_the_threshold_on_both_sides(tmp_path: Path) -> None:
    options = SpecOptions(short_side=320, long_side=533, score_threshold=0.97)
    report = export_onnx(WEIGHTS, tmp_path / "strict.onnx", options)
    assert report.check is not None
    assert report.check.lowered
    assert report.check.score_threshold < 0.97
    assert report.check.verdict.detections >= 20
    with Predictor.open(tmp_path / "strict.onnx") as predictor:
        assert (predictor.predict(SAMPLE_PHOTO).scores > 0.97).all()


def test_a_wrong_file_is_not_left_behind(
    demo_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export_command.__dict__["_write"]
    monkeypatch.setattr(tracing, "trace", lambda *_: ir.load(demo_onnx))

    def write_wrong(graph: ir.Model, path: Path, *arguments: object) -> None:
        bias = graph.graph.initializers["box_head.bbox_pred.bias"]
        assert bias.const_value is not None
        bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(0.05))
        write(graph, path, *arguments)

    monkeypatch.setattr(export_command, "_write", write_wrong)
    target = tmp_path / "wrong.onnx"
    target.write_bytes(b"an earlier file")
    with pytest.raises(ExportError, match="differs from the eager model beyond the limits"):
        export_onnx(WEIGHTS, target, OPTIONS)
    assert target.read_bytes() == b"an earlier file"
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.onnx"]


@pytest.mark.parametrize(
    "overrides",
    [
        {"preprocess": {"channel_order": "bgr"}},
        {"fpn": {"fuse": "average"}},
        {"box": {"pooler": {"aligned": True}}},
        {"mask": {"paste": "float"}},
    ],
    ids=["channel-order", "fuse", "aligned", "paste"],
)
def test_a_spec_that_torchvision_does_not_support_is_refused(
    overrides: dict[str, object],
) -> None:
    options = SpecOptions(short_side=320, long_side=533, overrides=overrides)
    with pytest.raises(SpecError, match="no eager model to compare with; export with --no-check"):
        TorchvisionEager(load(WEIGHTS, options))
