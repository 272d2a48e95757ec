"""`--histograms`: what is shown of each quantised tensor, and when there is nothing to show."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from calib.calibration.table import Table
from calib.calibration.table_key import TableKey
from calib.graph.formats import FORMATS
from calib.graph.layers import weighted_layers
from calib.graph.placement import Placement, place_for_onnxruntime
from calib.graph.presets import chosen_layers
from calib.quantize import main
from calib.report.histograms import draw_histograms
from calib.report.tensor_stats import Seen, seen
from calib.rounding.weights import round_to_nearest
from calib.writers.registry import WRITERS


def _seen(counts: list[int], kept: float, bin_width: float = 0.5) -> Seen:
    largest = len(counts) * bin_width
    return Seen("t", "body", np.array(counts), bin_width, largest, kept, "255 steps")


@pytest.mark.parametrize(
    ("counts", "kept", "clipped"),
    [([1, 1, 1, 1], 2.0, 0.0), ([1, 1, 1, 1], 1.5, 0.25), ([8, 0, 0, 2], 0.4, 0.2), ([0], 0.0, 0)],
)
def test_the_clipped_share(counts: list[int], kept: float, clipped: float) -> None:
    assert _seen(counts, kept).clipped == clipped


@pytest.mark.parametrize(
    ("writer", "form", "codes"),
    [
        ("onnxruntime", "int8", {"127 steps", "255 steps"}),
        ("tensorrt", "int8", {"127 steps"}),
        ("tensorrt", "fp8", {"E4M3"}),
    ],
)
def test_every_quantised_tensor_with_the_code_that_is_written(
    writer: str, form: str, codes: set[str], demo_onnx: Path
) -> None:
    graph = ir.load(demo_onnx).graph
    placement = WRITERS[writer].place(graph, chosen_layers(weighted_layers(graph), "fast"))
    names = [str(value.name) for value in placement.ranges]
    table = Table(TableKey("sha", "preprocess", "percentile"), names)
    values = np.linspace(-3, 3, 1001, dtype=np.float32)
    for factor, name in enumerate(names, start=1):
        table.observe(name, values * factor)
    WRITERS[writer].write(graph, placement, FORMATS[form], table.largest, round_to_nearest)
    found = seen(placement, table)
    assert [one.name for one in found] == names
    assert {one.counts.sum() for one in found} == {values.size}
    assert {one.code for one in found} == codes
    assert {"body", "fpn", "box_head", "mask_head"} <= {one.role for one in found}
    largest = {"127 steps": 127, "255 steps": 255, "E4M3": 448}
    for factor, one in enumerate(found, start=1):
        scale = graph.initializers[f"{_written_as(placement, one.name)}_scale"].const_value
        assert scale is not None
        assert one.kept == pytest.approx(float(scale.numpy()) * largest[one.code])
        assert one.kept == pytest.approx(3 * factor, rel=0.01)


def _written_as(placement: Placement, range_name: str) -> str:
    sites = [site for site in placement.sites if site.range_of.name == range_name]
    return str(sites[0].value.name)


def test_methods_that_count_nothing_show_nothing(demo_onnx: Path) -> None:
    graph = ir.load(demo_onnx).graph
    placement = WRITERS["tensorrt"].place(graph, chosen_layers(weighted_layers(graph), "fast"))
    names = [str(value.name) for value in placement.ranges]
    assert seen(placement, Table(TableKey("sha", "preprocess", "min-max"), names)) == ()


@pytest.mark.filterwarnings("error")
def test_names_of_tensors_are_never_read_as_anything_else(tmp_path: Path) -> None:
    names = ["$\\undefined$", "../x", "a" * 300, "\0", "名", ""]
    counts = np.array([5, 0, 1])
    tensors = [Seen(name, "../role", counts, 0.5, 1.5, 1.2, "127 steps") for name in names]
    folder = tmp_path / "histograms"
    folder.mkdir()
    (folder / "009_of_an_earlier_run.png").touch()
    (folder / "of_the_user.png").touch()
    drawn = draw_histograms(tensors, folder)
    assert len(drawn) == len(names)
    assert sorted(folder.iterdir()) == sorted([*drawn, folder / "of_the_user.png"])
    assert list(tmp_path.iterdir()) == [folder]


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
