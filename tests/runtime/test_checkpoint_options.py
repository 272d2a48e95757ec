"""Where a checkpoint runs, its assumptions are shown, and options replace them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export import doctor, inspect
from model.errors import AssumptionWarning, UsageError
from model.spec_options import SpecOptions
from runtime import predict
from runtime.predictor import Predictor
from runtime.sessions.open import open_session
from tests.small_checkpoint import saved


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    return path


def test_opening_a_checkpoint_warns_of_every_assumption(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.warns(AssumptionWarning) as caught, Predictor.open(path) as predictor:
        assumed = predictor.artifact.assumptions
    assert all(f"assumed: {line}" in str(caught[0].message) for line in assumed)
    assert any(line.startswith("anchors: sizes ") for line in assumed)
    options = SpecOptions(short_side=64, overrides={"anchors": {"sizes": [[8.0]] * 5}})
    with Predictor.open(path, options=options) as predictor:
        assert predictor.spec.preprocess.short_side == 64
        assumed = predictor.artifact.assumptions
    assert not any("short_side" in line or "sizes" in line for line in assumed)


def test_predict_prints_them_and_takes_the_options(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(tmp_path), str(tmp_path / "out")
    options = ["--short-side", "64", "--long-side", "96", "--names", "cat,dog"]
    assert predict.main([str(path), str(photo), "-o", out, *options, "--save", "json"]) == 0
    printed = capsys.readouterr()
    assert "assumed: box: score_threshold 0.05 (--score-threshold), " in printed.out
    assert "--short-side" not in printed.out
    assert "Warning" not in printed.out + printed.err


def test_options_are_for_checkpoints(demo_onnx: Path) -> None:
    with pytest.raises(UsageError, match="contains its spec"):
        open_session(demo_onnx, options=SpecOptions(short_side=64))


def test_any_name_that_export_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning's suffix, one of an archive, and none."""
    path = saved(tmp_path)
    for name in ("w.ckpt", "w.pth.tar", "w"):
        other = tmp_path / name
        shutil.copy(path, other)
        open_session(other).close()
        assert doctor.main([str(other)]) == 0
        assert "torchvision" in capsys.readouterr().out


def test_the_next_command_repeats_the_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, spec = saved(tmp_path), tmp_path / "a.json"
    spec.write_text(json.dumps({"rpn": {"pre_nms": 500}}))
    given = ["--short-side", "64", "--long-side", "96", "--spec", str(spec)]
    assert inspect.main([str(path), *given]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" ".join([str(path), *given]))
