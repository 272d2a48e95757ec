"""`maskport inspect` and `maskport convert`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export import convert, inspect
from export.inspect import describe
from model.checkpoint import Checkpoint, load
from model.errors import CheckpointError
from model.families.assumptions import listing
from model.files.stored_spec import header_of
from model.spec import ClassSpec
from model.spec_json import from_json
from tests.small_checkpoint import saved


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def converted(weights: Path) -> Path:
    output = weights.with_name("kept.safetensors")
    options = ["--score-threshold", "0.25", "--short-side", "123"]
    assert convert.main([str(weights), str(output), *options]) == 0
    return output


def test_the_spec_stays_with_the_weights(weights: Path, converted: Path) -> None:
    before, after = load(weights), load(converted)
    assert after.spec == replace(
        before.spec,
        box=replace(before.spec.box, score_threshold=0.25),
        preprocess=replace(before.spec.preprocess, short_side=123),
    )
    assert after.assumptions == ()
    assert set(after.tensors) == set(before.tensors)
    assert set(after.original) == set(before.original)
    assert all(torch.equal(after.tensors[n], t) for n, t in before.tensors.items())


def test_options_override_the_stored_spec(converted: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    assert convert.main([str(converted), str(again), "--nms-iou", "0.3"]) == 0
    spec = load(again).spec
    assert (spec.box.nms_iou, spec.box.score_threshold) == (0.3, 0.25)


@pytest.mark.parametrize("output", ["weights.pth", "weights.safetensors.txt"])
def test_other_names_are_refused(
    output: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert.main([str(weights), str(tmp_path / output)]) == 2
    assert ".safetensors" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_input_is_not_overwritten(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = converted.read_bytes()
    assert convert.main([str(converted), str(converted)]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert converted.read_bytes() == before


def test_a_damaged_header_is_refused(converted: Path, tmp_path: Path) -> None:
    header = header_of(load(converted).spec)
    header["maskport.spec"] = header["maskport.spec"].replace('"box"', '"bax"')
    path = tmp_path / "odd.safetensors"
    save_file(load_file(converted), path, header)
    with pytest.raises(CheckpointError, match=r"damaged header .*'bax'"):
        load(path)


def test_a_header_of_another_network_is_refused(converted: Path, tmp_path: Path) -> None:
    spec = load(converted).spec
    path = tmp_path / "odd.safetensors"
    narrower = replace(spec, classes=ClassSpec(spec.classes.names[:-1]))
    save_file(load_file(converted), path, header_of(narrower))
    with pytest.raises(CheckpointError, match="has shape"):
        load(path)


def test_inspect_prints_every_field(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(weights)]) == 0
    out = capsys.readouterr().out
    checkpoint = load(weights)
    assert f"torchvision · {checkpoint.spec.architecture}" in out.splitlines()[0]
    for line in listing(checkpoint.assumptions):
        assert f"assumed: {line}" in out
    assert checkpoint.sha256 in out
    assert out.splitlines()[-1].startswith("next: ")
    words = " ".join(out.split())
    for name in ("nms_iou", "stride_rule", "sampling_ratio", "paste", "resize_rule"):
        assert f" {name} " in words or f".{name} " in words


def test_its_json_is_the_spec(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(weights), "--json", "--detections", "7"]) == 0
    text = capsys.readouterr().out
    assert from_json(text).box.detections == 7
    assert json.loads(text)["dialect"] == "torchvision"


def test_inspect_reads_exported_files(
    demo_onnx: Path, demo_checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([str(demo_onnx)]) == 0
    out = capsys.readouterr().out
    assert "target onnxruntime" in out
    assert demo_checkpoint.sha256 in out
    assert inspect.main([str(demo_onnx), "--json"]) == 0
    assert from_json(capsys.readouterr().out) == demo_checkpoint.spec


@pytest.mark.parametrize("name", ["absent.onnx", "absent.engine", "absent.pth"])
def test_inspect_of_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tmp_path / name)]) == 1
    assert f"{name}" in capsys.readouterr().err


def test_unprintable_names_are_escaped(demo_checkpoint: Checkpoint) -> None:
    spec = demo_checkpoint.spec
    names = ("\x1b[2Jbackground", *(f"a\nb{i}" for i in range(len(spec.classes.names) - 1)))
    for line in describe(replace(spec, classes=ClassSpec(names))):
        assert line.isprintable()
