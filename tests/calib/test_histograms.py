"""`--histograms`: what is shown of each quantised tensor, and when there is nothing to show."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from calib.layers import weighted_layers
from calib.placement import place_for_onnxruntime
from calib.policy import chosen_layers
from calib.quantize import main
from calib.seen import Seen, seen
from calib.table import Table, TableKey


def _seen(counts: list[int], kept: float, bin_width: float = 0.5) -> Seen:
    largest = len(counts) * bin_width
    return Seen("t", "body", np.array(counts), bin_width, largest, kept, 255)


@pytest.mark.parametrize(
    ("counts", "kept", "clipped"),
    [([1, 1, 1, 1], 2.0, 0.0), ([1, 1, 1, 1], 1.5, 0.25), ([8, 0, 0, 2], 0.4, 0.2), ([0], 0.0, 0)],
)
def test_the_clipped_share(counts: list[int], kept: float, clipped: float) -> None:
    assert _seen(counts, kept).clipped == clipped


def test_every_quantised_tensor_with_its_own_code(demo_onnx: Path) -> None:
    graph = ir.load(demo_onnx).graph
    placement = place_for_onnxruntime(graph, chosen_layers(weighted_layers(graph), "fast"))
    names = [str(value.name) for value in placement.ranges]
    table = Table(TableKey("sha", "preprocess", "percentile"), names)
    values = np.linspace(-3, 3, 1001, dtype=np.float32)
    for name in names:
        table.observe(name, values)
    found = seen(placement, table)
    assert [one.name for one in found] == names
    assert {one.counts.sum() for one in found} == {values.size}
    assert {one.levels for one in found} == {127, 255}, "signed and unsigned tensors"
    assert {"body", "fpn", "rpn", "box_head", "mask_head"} <= {one.role for one in found}
    without = Table(TableKey("sha", "preprocess", "min-max"), names)
    assert seen(placement, without) == ()


def test_a_picture_for_each(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    table, run = tmp_path / "t.json", tmp_path / "run"
    shutil.copy(standard_table, table)
    argv = [str(demo_onnx), *map(str, scenes), "-o", str(tmp_path / "q.onnx")]
    argv += ["--rounding", "nearest", "--table", str(table), "--run-dir", str(run)]
    assert main([*argv, "--histograms"]) == 0
    pictures = sorted((run / "histograms").iterdir())
    graph = ir.load(demo_onnx).graph
    placement = place_for_onnxruntime(graph, chosen_layers(weighted_layers(graph), "accurate"))
    assert len(pictures) == len(placement.ranges) >= 5
    for number, picture in enumerate(pictures):
        assert picture.name.startswith(f"{number:03}_")
        with Image.open(picture) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10, "something is drawn"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--histograms"], "--histograms: the pictures need a folder; give --run-dir too"),
        (
            ["--histograms", "--run-dir", "run", "--method", "min-max"],
            "--histograms: --method min-max keeps no counts",
        ),
    ],
)
def test_nothing_to_show(
    options: list[str], said: str, demo_onnx: Path, scenes: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([str(demo_onnx), str(scenes[0]), *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "nothing is left"
