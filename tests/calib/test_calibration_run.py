"""Calibration beyond ranges: overflow of FP16 layers, memory, threads, photos."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from calib.calibration import activations, photos
from calib.calibration.activations import Activations
from calib.calibration.photos import Photo, canvases, unique_photos
from calib.calibration.work import shapes_in_runs
from calib.context import RunContext
from calib.evaluation.reference import open_reference, with_settings_of
from calib.options import QuantizeOptions
from calib.quantize import main, quantize
from calib.rounding.vnni import int8_accumulation_saturates
from export.onnx_file import read_onnx
from export.precision.formats import FORMATS
from model.checkpoint import Checkpoint
from model.errors import ArtifactError, ExportError
from runtime.artifacts.checksum import CHECKSUM_KEY
from runtime.preprocessing.canvas import Canvas
from tests.conftest import DEMO
from tests.planted_overflow import scaled

NEAREST = QuantizeOptions(rounding="nearest")


def _context(file: Path, **options: Any) -> RunContext:
    return RunContext.of(read_onnx(file), QuantizeOptions(threads=1, **options))


def test_a_tensor_that_exceeds_fp16_is_named(
    demo_rtx_onnx: Path, native_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    options = replace(NEAREST, float_type="fp16")
    fits = quantize(
        demo_rtx_onnx, scenes, tmp_path / "q.onnx", replace(options, table=native_table)
    )
    assert fits.ranges is not None
    assert len(fits.ranges.tensors) > 50
    assert {one.tensor.format for one in fits.ranges.tensors} == {"fp16"}
    assert max(one.largest for one in fits.ranges.tensors) < FORMATS["fp16"].largest
    model, names = ir.load(demo_rtx_onnx), []
    scaled(2.0**15, names)(model)
    del model.metadata_props[CHECKSUM_KEY]
    ir.save(model, tmp_path / "loud.onnx")
    output = tmp_path / "loud.int8.onnx"
    with pytest.raises(
        ExportError, match=r"FP16 overflows on 0\.png: .*--float-type fp32"
    ) as caught:
        quantize(tmp_path / "loud.onnx", scenes[:4], output, options)
    assert f"'{names[0]}'" in str(caught.value)
    assert not output.exists()
    # In float32 the same model is as good as before.
    assert quantize(tmp_path / "loud.onnx", scenes[:4], output, NEAREST).ranges is None


def test_photos_of_the_table_that_were_not_passed_are_reported(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    argv = [str(demo_onnx), "-o", str(tmp_path / "q.onnx"), "--rounding", "nearest"]
    argv += ["--table", str(standard_table)]
    assert main([*argv, *map(str, scenes[:4])]) == 0
    assert (
        f"ranges include {len(scenes) - 4} photos of the table not passed now"
        in capsys.readouterr().err
    )
    assert main([*argv, *map(str, scenes)]) == 0
    assert "not passed" not in capsys.readouterr().err


def test_threads_reach_every_session(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime as ort

    int8_accumulation_saturates()  # opens a session of its own once in a process
    threads: list[int] = []
    real: Callable[..., Any] = ort.InferenceSession

    def spied(data: Any, options: Any, *args: Any, **more: Any) -> Any:
        threads.append(options.intra_op_num_threads)
        return real(data, options, *args, **more)

    monkeypatch.setattr(ort, "InferenceSession", spied)
    quantize(tiny_onnx, scenes[:4], tmp_path / "q.onnx", QuantizeOptions(threads=1))
    # Ranges, rounding, shapes, and the count of kernels.
    assert threads == [1] * 4


def test_a_fixed_batch_is_run_in_parts(
    demo_onnx: Path, scenes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ir.load(demo_onnx)
    nodes = [node for node in model.graph if node.op_type in ("Conv", "Gemm")]
    names = [str(node.outputs[0].name) for node in nodes]
    ((_, canvas),) = canvases([Photo.of(scenes[0])], _context(demo_onnx))
    whole = dict(Activations(model, names).run(canvas))
    images = next(value for value in model.graph.inputs if value.name == "images")
    assert activations._fixed_batch(model.graph) == 1
    images.shape = ir.Shape([3, 3, 320, 448])
    assert activations._fixed_batch(model.graph) == 3
    images.shape = ir.Shape(["n", 3, "h", "w"])
    opened: list[int] = []
    opener = activations.open_on_cpu

    def counted(graph: ir.Model, *args: Any, **more: Any) -> Any:
        opened.append(len(graph.graph.outputs) - 2)
        return opener(graph, *args, **more)

    monkeypatch.setattr(activations, "_fixed_batch", lambda graph: 3)
    monkeypatch.setattr(activations, "open_on_cpu", counted)
    parts = dict(Activations(model, names).run(canvas))
    assert sum(opened) == len(names)
    assert max(opened) - min(opened) <= 1
    assert len(opened) == 3
    assert set(parts) == set(whole)
    assert all(np.array_equal(parts[name], whole[name]) for name in names)


def test_a_checkpoint_runs_with_the_settings_of_the_graph(
    demo_onnx: Path, demo_checkpoint: Checkpoint
) -> None:
    artifact = read_onnx(demo_onnx).artifact
    graph = replace(
        artifact.spec,
        box=replace(artifact.spec.box, score_threshold=0.4, detections=7),
        rpn=replace(artifact.spec.rpn, post_nms=55),
    )
    spec = with_settings_of(graph, demo_checkpoint.spec)
    assert (spec.box.score_threshold, spec.box.detections, spec.rpn.post_nms) == (0.4, 7, 55)
    assert spec.preprocess == graph.preprocess
    assert spec.body == demo_checkpoint.spec.body
    context = _context(demo_onnx, reference=DEMO / "shapes.pth")
    session = open_reference(replace(context, artifact=replace(artifact, spec=graph)))
    assert session.artifact.spec.box.detections == 7
    session.close()


def test_a_failure_of_onnxruntime_while_shapes_are_counted_is_one_error(demo_onnx: Path) -> None:
    model = ir.load(demo_onnx)
    name = str(next(node for node in model.graph if node.op_type == "Conv").outputs[0].name)
    wrong = Canvas(np.zeros((1, 4, 64, 64), np.float32), np.ones((1, 2), np.float32), ())
    with pytest.raises(ArtifactError, match="calibration: ONNX Runtime failed"):
        list(shapes_in_runs(model, [name], [wrong], 1))


def test_a_repeated_path_is_not_a_copy(demo_onnx: Path, scenes: list[Path], tmp_path: Path) -> None:
    copy, context = tmp_path / "copy.png", _context(demo_onnx)
    shutil.copy(scenes[0], copy)
    unique = unique_photos([scenes[0], scenes[1], scenes[0], copy], context)
    assert [photo.path for photo in unique] == scenes[:2]
    assert list(context.skipped) == [copy]


def test_a_photo_is_hashed_and_decoded_once(
    tiny_onnx: Path, scenes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    hashed: list[Path] = []
    decode_as, of = photos.decode_as, Photo.of
    monkeypatch.setattr(
        photos, "decode_as", lambda path, form: decoded.append(path) or decode_as(path, form)
    )
    monkeypatch.setattr(Photo, "of", lambda path: hashed.append(path) or of(path))
    quantize(tiny_onnx, scenes, tmp_path / "q.onnx", QuantizeOptions(threads=1))
    assert decoded == hashed == scenes
