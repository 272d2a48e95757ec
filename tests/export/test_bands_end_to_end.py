"""Models of one and four channels, from TIFF and PNG files to overlays and INT8."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calib.quantize import main as quantize
from export.onnx import export_onnx
from model.errors import UsageError
from runtime.predict import main as predict
from runtime.predictor import Predictor
from tests.live_models import photos_of, run_object
from tests.live_variants import of_channels, spread

tifffile = pytest.importorskip("tifffile")


def write_photos(folder: Path, channels: int, low_bits: int) -> list[Path]:
    """Photos of 12 bits in 16, or of 16 bits, whose high bytes are those of `photos_of`."""
    folder.mkdir()
    paths = []
    for seed in (5, 8):
        for index, photo in enumerate(photos_of(channels, seed)):
            words = (photo.astype(np.uint16) << low_bits) | (photo >> (8 - low_bits))
            path = folder / f"{seed}-{index}.tif"
            if channels > 1:
                tifffile.imwrite(path, words, photometric="minisblack", planarconfig="contig")
            elif index == 0:
                path = path.with_suffix(".png")
                Image.fromarray(words[..., 0]).save(path)
            else:
                tifffile.imwrite(path, words[..., 0])
            paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("channels", "low_bits"),
    [pytest.param(4, 4, marks=pytest.mark.slow), pytest.param(1, 8, marks=pytest.mark.slow)],
)
def test_from_files_to_overlays_and_int8(
    channels: int, low_bits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = spread(lambda: of_channels(channels))
    paths = write_photos(tmp_path / "photos", channels, low_bits)
    folder, out = str(tmp_path / "photos"), tmp_path / "out"
    most = float((1 << 8 + low_bits) - 1)
    values = ["--value-range", f"0:{most:g}"] if low_bits == 4 else []
    fp32 = tmp_path / "model.onnx"
    export_onnx(model, fp32, check_photo=paths[0] if low_bits == 8 else None)
    assert predict([str(fp32), folder, "-o", str(out), *values]) == 0
    for path in paths:
        overlay = np.asarray(Image.open(out / f"{path.stem}.png"))
        assert overlay.shape[2] == 3
        assert overlay.any()
    assert len(json.loads((out / "results.json").read_text())) > 0

    # The module's own transform takes values from 0 to 1.
    eager = run_object(
        model, [tifffile.imread(paths[1]).reshape(220, 140, channels) * (255 / most)]
    )
    opened = Predictor.open(fp32, value_range=(0, most) if values else None)
    with opened as predictor:
        ours = predictor.predict(paths[1])
        again = predictor.predict(predictor.decode(paths[1]))
        streamed = next(iter(predictor.stream(paths[1:2])))
    assert len(ours.scores) == len(eager[0].scores) > 0
    np.testing.assert_allclose(np.sort(ours.scores), np.sort(eager[0].scores), atol=1e-3)
    np.testing.assert_array_equal(ours.boxes, again.boxes)
    np.testing.assert_array_equal(ours.boxes, streamed.detections.boxes)

    int8 = tmp_path / "int8.onnx"
    assert quantize([str(fp32), folder, "-o", str(int8), "--rounding", "nearest", *values]) == 0
    drawn = ["--bands", "4,1,2"] if channels == 4 else []
    more = tmp_path / "int8"
    assert predict([str(int8), folder, "-o", str(more), *values, *drawn]) == 0
    capsys.readouterr()
    wrong = tmp_path / "rgb.png"
    Image.fromarray(photos_of()[0]).save(wrong)
    assert predict([str(int8), str(wrong), "-o", str(tmp_path / "no")]) == 1
    assert f"error: {wrong}: expected {channels} channel" in capsys.readouterr().err


def test_a_live_model_from_a_tiff_file(tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path / "photos", 4, 8)[:1]
    words = tifffile.imread(path)
    with Predictor.open(spread(lambda: of_channels(4))) as predictor:
        predictor.warm_up()
        ours = predictor.predict(path)
        (streamed,) = predictor.stream([words], keep_pixels=True)
        halved = predictor.predict(words // 2)
    np.testing.assert_array_equal(streamed.pixels, words, strict=True)
    np.testing.assert_array_equal(ours.boxes, streamed.detections.boxes)
    with Predictor.open(spread(lambda: of_channels(4)), value_range=(0, 32767)) as predictor:
        same = predictor.predict(words // 2)
    assert len(ours.scores) > 0
    np.testing.assert_allclose(same.scores, ours.scores, atol=1e-3)
    assert len(halved.scores) != len(ours.scores) or not np.allclose(halved.scores, ours.scores)
    with pytest.raises(UsageError, match="--scaled-decode"):
        Predictor.open(spread(lambda: of_channels(4)), scaled_decode=True)
