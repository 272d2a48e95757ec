"""`--histograms`: the plot of each quantized tensor, and when there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from calib.calibration.table import Table, TableKey
from calib.graph.formats import FORMATS
from calib.graph.layers import weighted_layers
from calib.graph.placement import Placement, place_for_onnxruntime
from calib.graph.presets import chosen_layers
from calib.quantize import main
from calib.report.plots import draw_histograms
from calib.report.tensor_stats import TensorHistogram, tensor_histograms
from calib.rounding.weights import WeightQuantizer
from calib.writers.registry import WRITERS


def _histogram(counts: list[int], limit: float, bin_width: float = 0.5) -> TensorHistogram:
    largest = len(counts) * bin_width
    return TensorHistogram("t", "body", np.array(counts), bin_width, largest, limit, "255 steps")


@pytest.mark.parametrize(
    ("counts", "limit", "clipped"),
    [([1, 1, 1, 1], 2.0, 0.0), ([1, 1, 1, 1], 1.5, 0.25), ([8, 0, 0, 2], 0.4, 0.2), ([0], 0.0, 0)],
)
def test_the_clipped_fraction(counts: list[int], limit: float, clipped: float) -> None:
    assert _histogram(counts, limit).clipped == clipped


@pytest.mark.parametrize(
    ("writer", "form", "codes"),
    [
        ("onnxruntime", "int8", {"127 steps", "255 steps"}),
        ("tensorrt", "int8", {"127 steps"}),
        ("tensorrt", "fp8", {"E4M3"}),
    ],
)
def test_every_quantized_tensor_has_the_limit_of_the_written_code(
    writer: str, form: str, codes: set[str], demo_onnx: Path
) -> None:
    graph = ir.load(demo_onnx).graph
    placement = WRITERS[writer].place(graph, chosen_layers(weighted_layers(graph), "fast"))
    names = [str(value.name) for value in placement.ranges]
    table = Table(TableKey("sha", "preprocess", "percentile"), names)
    values = np.linspace(-3, 3, 1001, dtype=np.float32)
    for factor, name in enumerate(names, start=1):
        table.observe(name, values * factor)
    WRITERS[writer].write(graph, placement, FORMATS[form], table.largest, WeightQuantizer())
    histograms = tensor_histograms(placement, table)
    assert [one.name for one in histograms] == names
    assert {one.counts.sum() for one in histograms} == {values.size}
    assert {one.code for one in histograms} == codes
    assert {"body", "fpn", "box_head", "mask_head"} <= {one.role for one in histograms}
    largest = {"127 steps": 127, "255 steps": 255, "E4M3": 448}
    for factor, one in enumerate(histograms, start=1):
        scale = graph.initializers[f"{_written_as(placement, one.name)}_scale"].const_value
        assert scale is not None
        assert one.limit == pytest.approx(float(scale.numpy()) * largest[one.code])
        assert one.limit == pytest.approx(3 * factor, rel=0.01)


def _written_as(placement: Placement, range_name: str) -> str:
    sites = [site for site in placement.sites if site.range_of.name == range_name]
    return str(sites[0].value.name)


def test_methods_without_counts_have_no_plots(demo_onnx: Path) -> None:
    graph = ir.load(demo_onnx).graph
    placement = WRITERS["tensorrt"].place(graph, chosen_layers(weighted_layers(graph), "fast"))
    names = [str(value.name) for value in placement.ranges]
    assert (
        tensor_histograms(placement, Table(TableKey("sha", "preprocess", "min-max"), names)) == ()
    )


@pytest.mark.filterwarnings("error")
def test_names_of_tensors_are_not_interpreted(tmp_path: Path) -> None:
    names = ["$\\undefined$", "../x", "a" * 300, "\0", "名", ""]
    counts = np.array([5, 0, 1])
    tensors = [
        TensorHistogram(name, "../role", counts, 0.5, 1.5, 1.2, "127 steps") for name in names
    ]
    folder = tmp_path / "histograms"
    folder.mkdir()
    (folder / "009_of_an_earlier_run.png").touch()
    (folder / "of_the_user.png").touch()
    drawn = draw_histograms(tensors, folder)
    assert len(drawn) == len(names)
    assert sorted(folder.iterdir()) == sorted([*drawn, folder / "of_the_user.png"])
    assert list(tmp_path.iterdir()) == [folder]


def test_a_plot_for_each(
    demo_onnx: Path, standard_table: Path, scenes: list[Path], tmp_path: Path
) -> None:
    table, run = tmp_path / "t.json", tmp_path / "run"
    shutil.copy(standard_table, table)
    argv = [str(demo_onnx), *map(str, scenes), "-o", str(tmp_path / "q.onnx")]
    argv += ["--rounding", "nearest", "--table", str(table), "--run-dir", str(run)]
    assert main([*argv, "--histograms"]) == 0
    plots = sorted((run / "histograms").iterdir())
    graph = ir.load(demo_onnx).graph
    placement = place_for_onnxruntime(graph, chosen_layers(weighted_layers(graph), "accurate"))
    assert len(plots) == len(placement.ranges) >= 5
    for number, plot in enumerate(plots):
        assert plot.name.startswith(f"{number:03}_")
        with Image.open(plot) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10, "something is drawn"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--histograms"], "--histograms: no folder; add --run-dir, where the plots go"),
        (
            ["--histograms", "--run-dir", "run", "--method", "min-max"],
            "--histograms: --method min-max has no histogram",
        ),
    ],
)
def test_histograms_need_a_folder_and_a_method_with_counts(
    options: list[str], message: str, demo_onnx: Path, scenes: list[Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([str(demo_onnx), str(scenes[0]), *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "nothing is left"
