"""What people embed: photos in, detections in the photos' own pixels out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from export.onnx_file import remove_checksum
from model.checkpoint import Checkpoint
from model.errors import ArtifactError, ImageError, UsageError
from runtime.artifacts.metadata import MANIFEST_KEY, Artifact
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.detections import Detections
from runtime.predictor import Predictor, UncertifiedResultWarning
from runtime.selection import Selection
from runtime.sessions.open import open_session
from runtime.sessions.session import Inputs, Outputs, Session
from runtime.sessions.torch import TorchSession

UInt8 = NDArray[np.uint8]
CANVAS_HW = (320, 448)


@pytest.fixture(scope="module")
def predictor(demo_onnx: Path) -> Iterator[Predictor]:
    with Predictor.open(demo_onnx, threads=1) as opened:
        yield opened


def with_fixed_inputs(source: Path, target: Path, batch: int | None) -> Path:
    """The same graph for one canvas and, unless None, one batch, as `--size --batch` say it."""
    model = remove_checksum(onnx.load(source))
    for value, trailing in zip(model.graph.input, ((3, *CANVAS_HW), (2,)), strict=True):
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims[1:], trailing, strict=True):
            dim.dim_value = size
        if batch is not None:
            dims[0].dim_value = batch
    for entry in model.metadata_props:
        if entry.key == MANIFEST_KEY:
            sizes = {"batch": batch, "height": CANVAS_HW[0], "width": CANVAS_HW[1]}
            entry.value = json.dumps(json.loads(entry.value) | sizes)
    onnx.save(model, target)
    return target


def with_threshold(source: Path, target: Path, threshold: float) -> Path:
    """The same graph with another score threshold inside."""
    model = remove_checksum(onnx.load(source))
    (tensor,) = (t for t in model.graph.initializer if t.name == "select.score_threshold")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(threshold, np.float32), tensor.name))
    onnx.save(model, target)
    return target


def crops(pixels: UInt8) -> list[UInt8]:
    """Photos of different sizes out of one."""
    return [pixels[:, :400], pixels[40:300, 100:], pixels[100:420, 200:600]]


def assert_same(one: Detections, other: Detections) -> None:
    for name, value in asdict(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def assert_close(one: Detections, other: Detections) -> None:
    """Equal but for the order of float sums, which ONNX Runtime chooses by shape and CPU."""
    assert one.names == other.names
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=2e-2)
    assert one.mask_probs is not None
    assert other.mask_probs is not None
    np.testing.assert_allclose(one.mask_probs, other.mask_probs, rtol=0, atol=1e-3)


def test_finds_the_shapes(predictor: Predictor, demo_photo: Path) -> None:
    result = predictor.predict(demo_photo, score_threshold=0.5)
    assert len(result) >= 5
    assert result.image_hw == (480, 640)
    assert result.exact
    assert set(result.names) <= set(predictor.spec.classes.names[1:])
    assert (np.diff(result.scores) <= 0).all()
    assert (result.boxes >= 0).all()
    assert (result.boxes[:, 2:] <= (640.001, 480.001)).all()
    masks = result.masks
    assert masks.shape == (len(result), 480, 640)
    assert masks.any(axis=(1, 2)).all()


def test_every_form_of_a_photo_gives_the_same(
    predictor: Predictor, demo_photo: Path, demo_pixels: UInt8
) -> None:
    expected = predictor.predict(demo_pixels)
    with Image.open(demo_photo) as image:
        forms: list[Any] = [demo_photo, str(demo_photo), image, np.asfortranarray(demo_pixels)]
        for form in forms:
            assert_same(predictor.predict(form), expected)
    gray = demo_pixels[:, :, 1]
    assert_same(predictor.predict(gray), predictor.predict(np.stack([gray] * 3, axis=2)))


def test_one_photo_and_a_list(predictor: Predictor, demo_pixels: UInt8) -> None:
    photos = crops(demo_pixels)
    together = predictor.predict(photos)
    assert [d.image_hw for d in together] == [(480, 400), (260, 540), (320, 400)]
    for photo, result in zip(photos, together, strict=True):
        assert_same(predictor.predict(photo), result)
    assert_same(predictor.predict((photos[0],))[0], together[0])
    assert predictor.predict([]) == []
    photos = crops(demo_pixels) * 2
    expected = predictor.predict(photos)
    with ThreadPoolExecutor(3) as pool:
        for one, other in zip(pool.map(predictor.predict, photos), expected, strict=True):
            assert_same(one, other)


def test_batch_of_different_sizes_equals_one_at_a_time_on_its_canvas(
    predictor: Predictor, demo_onnx: Path, demo_pixels: UInt8, tmp_path: Path
) -> None:
    # 320 x 426 and 320 x 400 after the resize rule, so the batch's canvas is 320 x 448.
    photos = [demo_pixels, demo_pixels[100:420, 200:600]]
    batch = predictor.predict(photos, batch_size=2)
    assert [d.image_hw for d in batch] == [(480, 640), (320, 400)]
    path = with_fixed_inputs(demo_onnx, tmp_path / "fixed.onnx", None)
    with Predictor.open(path, threads=1) as fixed:
        for photo, result in zip(photos, batch, strict=True):
            assert len(result) > 0
            assert_close(fixed.predict(photo), result)
    assert_close(predictor.predict(demo_pixels), batch[0])


def test_eager_session_agrees(
    predictor: Predictor, demo_checkpoint: Checkpoint, demo_pixels: UInt8
) -> None:
    with Predictor(TorchSession(demo_checkpoint)) as eager:
        verdict = check([compare(eager.predict(demo_pixels), predictor.predict(demo_pixels))])
    assert verdict.passed, str(verdict)
    assert verdict.detections >= 20


@pytest.fixture(scope="module")
def strict(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    """Finds the clear shapes of a photo, and nothing on a blank one."""
    path = with_threshold(demo_onnx, tmp_path_factory.mktemp("strict") / "strict.onnx", 0.8)
    with Predictor.open(path, threads=1) as opened:
        yield opened


BLANK = np.full((240, 320, 3), 128, np.uint8)


def test_photos_without_a_detection(strict: Predictor, demo_pixels: UInt8) -> None:
    result = strict.predict(BLANK)
    assert len(result) == 0
    assert result.boxes.shape == (0, 4)
    assert result.image_hw == (240, 320)
    assert result.rle() == []
    assert result.masks.shape == (0, 240, 320)
    np.testing.assert_array_equal(np.asarray(result.draw(BLANK)), BLANK)
    photos = [BLANK, demo_pixels, BLANK]
    result = strict.predict(photos, batch_size=3)
    assert [len(d) for d in result[::2]] == [0, 0]
    assert len(result[1]) > 0
    assert_close(result[1], strict.predict(demo_pixels))


def test_static_batch(demo_onnx: Path, demo_pixels: UInt8, tmp_path: Path) -> None:
    path = with_fixed_inputs(demo_onnx, tmp_path / "static.onnx", 2)
    photos = crops(demo_pixels)
    with Predictor.open(path, threads=1) as static:
        result = static.predict(photos)  # two runs, the second with a blank row
        assert [d.image_hw for d in result] == [p.shape[:2] for p in photos]
        assert_close(static.predict(photos[2]), result[2])
        assert_close(static.predict(photos[1]), result[1])
        with pytest.raises(UsageError, match=r"exported for a batch of at most 2; .*--batch 3"):
            static.predict(photos, batch_size=3)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_size_is_at_least_one(predictor: Predictor, batch_size: int) -> None:
    with pytest.raises(UsageError, match="batch_size: expected a whole number from 1"):
        predictor.predict([BLANK], batch_size=batch_size)


def test_threshold_raises_the_exported_one(predictor: Predictor, demo_pixels: UInt8) -> None:
    everything = predictor.predict(demo_pixels)
    some = predictor.predict(demo_pixels, score_threshold=0.5)
    assert 0 < len(some) < len(everything)
    assert_same(some, everything.select(Selection(score_threshold=0.5)))
    exported = predictor.spec.box.score_threshold
    assert_same(predictor.predict(demo_pixels, score_threshold=exported), everything)


def test_threshold_out_of_range(predictor: Predictor, subtests: pytest.Subtests) -> None:
    for threshold, says in [
        (0.01, r"0\.01 is below the exported 0\.05; export with --score-threshold 0\.01"),
        (-0.1, "expected 0 to 1"),
        (1.5, "expected 0 to 1"),
        (float("nan"), "expected a number, got nan"),
    ]:
        with subtests.test(says), pytest.raises(UsageError, match=says):
            predictor.predict(BLANK, score_threshold=threshold)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_bad_photo_is_named_by_its_place(
    predictor: Predictor, demo_pixels: UInt8, tmp_path: Path, batch_size: int
) -> None:
    flat = np.zeros((1, 20000, 3), np.uint8)
    with pytest.raises(ImageError, match=r"^photo 2: .*1x20000"):
        predictor.predict([demo_pixels, demo_pixels, flat], batch_size=batch_size)
    with pytest.raises(ImageError, match=r"^photo 1: expected an array .*float32"):
        predictor.predict([demo_pixels, BLANK.astype(np.float32)], batch_size=batch_size)
    path = tmp_path / "words.jpg"
    path.write_text("words")
    with pytest.raises(ImageError) as caught:
        predictor.predict([demo_pixels, path], batch_size=batch_size)
    assert str(caught.value).count(str(path)) == 1


def test_time_of_every_stage_is_counted(demo_onnx: Path, demo_photo: Path) -> None:
    with Predictor.open(demo_onnx, threads=1) as timed:
        timed.warm_up()
        assert timed.times.photos == 0
        assert not any(timed.times.seconds.values())
        pixels = timed.decode(demo_photo)
        decoding = timed.times.seconds["decode"]
        assert decoding > 0
        timed.predict(pixels)
        timed.predict([demo_photo, BLANK])
    assert timed.times.photos == 3
    assert timed.times.seconds["decode"] > decoding
    assert all(seconds > 0 for seconds in timed.times.seconds.values())
    assert list(timed.times.seconds) == ["decode", "preprocess", "network", "results"]
    assert " ms · " in str(timed.times)


class _Changed:
    """A session with changed outputs."""

    def __init__(self, session: Session, **changes: int) -> None:
        self._session = session
        self._changes = changes

    @property
    def artifact(self) -> Artifact:
        return self._session.artifact

    def run(self, inputs: Inputs) -> Outputs:
        outputs = self._session.run(inputs)
        return outputs | {n: np.full_like(outputs[n], v) for n, v in self._changes.items()}

    def close(self) -> None:
        self._session.close()


def test_uncertified_results(
    demo_onnx: Path, demo_pixels: UInt8, subtests: pytest.Subtests
) -> None:
    for diagnostic, remedy in [
        ("nms_open", "export with more --nms-rounds"),
        ("candidates_cut", "a higher --candidates"),
        ("samples_cut", "a higher --max-sampling"),
    ]:
        with subtests.test(diagnostic=diagnostic):
            session = _Changed(open_session(demo_onnx, None, 1), **{diagnostic: 3})
            with pytest.warns(UncertifiedResultWarning, match=remedy) as caught:
                result = Predictor(session).predict(demo_pixels)
            assert not result.exact
            assert caught[0].filename == __file__
            with pytest.raises(ArtifactError, match=remedy):
                Predictor(session, on_uncertified="raise").predict(demo_pixels)
            assert_same(Predictor(session, on_uncertified="ignore").predict(demo_pixels), result)


def test_label_without_a_name_is_an_artifact_error(demo_onnx: Path, demo_pixels: UInt8) -> None:
    session = open_session(demo_onnx, None, 1)
    with pytest.raises(ArtifactError, match="expected labels 1 to 7, got 8"):
        Predictor(_Changed(session, labels=8)).predict(demo_pixels)


def test_photo_with_fewer_pixels_than_a_fixed_canvas(
    demo_onnx: Path, demo_pixels: UInt8, tmp_path: Path
) -> None:
    path = with_fixed_inputs(demo_onnx, tmp_path / "fixed.onnx", 1)
    with Predictor.open(path, threads=1) as fixed:
        result = fixed.predict([demo_pixels, demo_pixels[:100, :100], demo_pixels[:, :200]])
    assert [d.image_hw for d in result] == [(480, 640), (100, 100), (480, 200)]
    assert all(np.isfinite(d.boxes).all() for d in result)
    assert (result[1].boxes <= 100.001).all()


def test_detections_do_not_keep_the_batch_alive(predictor: Predictor) -> None:
    """A stored result must not keep the empty rows of the outputs alive."""
    result = predictor.predict(BLANK)
    base = result.mask_probs.base
    assert base is None or base.nbytes <= 2 * result.mask_probs.nbytes


def test_the_spec_is_read_from_the_file(predictor: Predictor, demo_checkpoint: Checkpoint) -> None:
    assert predictor.spec == demo_checkpoint.spec
    assert predictor.artifact.manifest.weights_sha256 == demo_checkpoint.sha256
    assert replace(predictor.artifact.manifest, batch=None) == predictor.artifact.manifest
