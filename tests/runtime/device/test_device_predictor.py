"""Frames on a device end to end, on CPU tensors, against `Predictor` on the same photos."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.errors import ArtifactError, ImageError, MissingDependencyError, UsageError
from runtime.artifacts.metadata import Artifact
from runtime.compare.limits import check
from runtime.compare.matching import compare
from runtime.detections import Detections
from runtime.device.predictor import DevicePredictor
from runtime.predictor import Predictor
from runtime.sessions.torch import TorchSession
from tests.runtime.device import models


@cache
def session(kind: str) -> TorchSession:
    return TorchSession(models.checkpoint(kind), mode="static")


def sample() -> torch.Tensor:
    return torch.from_numpy(models.photos(1))


def same(result: Detections, expected: Detections) -> None:
    """Compare every field; the network ran on the same pixels with the same code."""
    assert result.names == expected.names
    assert result.image_hw == expected.image_hw
    assert (result.exact, result.dropped) == (expected.exact, expected.dropped)
    np.testing.assert_array_equal(result.boxes, expected.boxes)
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.labels, expected.labels)
    assert result.paste == expected.paste
    assert result.mask_threshold == expected.mask_threshold
    for name in ("mask_probs", "keypoints"):
        ours, theirs = getattr(result, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    comparison = compare(expected, result, "photo")
    assert check([comparison]).excesses == ()
    assert len(comparison.matching.pairs) == len(expected)


@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize("kind", models.KINDS)
def test_results_equal_the_predictors(kind: str, library: str) -> None:
    photos = models.photos(2)
    expected = Predictor(session(kind), on_uncertified="ignore").predict(list(photos), batch_size=2)
    frames = torch.from_numpy(photos) if library == "torch" else photos
    result = DevicePredictor(session(kind)).predict(frames)
    assert type(result.boxes) is type(frames)
    assert len(result) == 2
    for ours, theirs in zip(result.to_host(), expected, strict=True):
        assert len(theirs) >= 5
        same(ours, theirs)


@pytest.mark.parametrize("kind", ["demo", "detectron2"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "form", ["hwc", "chw", "batch-hwc", "batch-chw", "list-hwc", "list-chw", "gaps"]
)
def test_every_form_of_frames(kind: str, form: str, order: Any) -> None:
    photo = models.photos(1)
    frames = torch.from_numpy(photo if order == "rgb" else photo[..., ::-1].copy())
    if "chw" in form:
        frames = frames.permute(0, 3, 1, 2).contiguous()
    if form == "gaps":
        wide = torch.zeros((480, 700, 4), dtype=torch.uint8)
        wide[:, 30:670, :3] = frames[0]
        argument: Any = wide[:, 30:670, :3]
    elif form.startswith("list"):
        argument = [frames[0]]
    else:
        argument = frames if form.startswith("batch") else frames[0]
    result = DevicePredictor(session(kind)).predict(argument, channel_order=order)
    expected = Predictor(session(kind), on_uncertified="ignore").predict(photo[0])
    same(result.to_host()[0], expected)


def test_frames_of_different_sizes() -> None:
    photos = [models.photos(1)[0], models.photos(2)[1][100:400, 50:350], models.photos(3)[2][:77]]
    predictor = Predictor(session("demo"), on_uncertified="ignore")
    expected = predictor.predict(photos, batch_size=3)
    argument = [torch.from_numpy(np.ascontiguousarray(photo)) for photo in photos]
    argument[1] = argument[1].permute(2, 0, 1)  # layouts may differ
    result = DevicePredictor(session("demo")).predict(argument)
    assert result.frames_hw == ((480, 640), (300, 300), (77, 640))
    for ours, theirs in zip(result.to_host(), expected, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize("kind", ["demo", "detectron2", "matterport"])
def test_pasted_masks_equal_the_hosts(kind: str) -> None:
    result = DevicePredictor(session(kind)).predict(torch.from_numpy(models.photos(1)))
    rows = slice(0, 12)
    host = result.to_host()[0].masks
    dense, valid = result.paste(rows=rows).numpy(), result.valid[0, rows].numpy()
    np.testing.assert_array_equal(dense[valid], host[: valid.sum()])
    assert not dense[~valid].any()
    assert host.any()
    stricter = result.paste(rows=rows, mask_threshold=0.8).numpy()
    assert stricter.sum() < dense.sum()


def test_rows_below_a_score_threshold_are_not_counted() -> None:
    frames = torch.from_numpy(models.photos(1))
    whole = DevicePredictor(session("demo")).predict(frames)
    result = DevicePredictor(session("demo")).predict(frames, score_threshold=0.5)
    expected = Predictor(session("demo")).predict(models.photos(1)[0], score_threshold=0.5)
    same(result.to_host()[0], expected)
    assert 0 < int(result.counts[0]) == int(result.valid.sum()) < int(whole.counts[0])
    invalid = ~result.valid
    for values in (result.boxes, result.scores, result.labels, result.masks):
        assert not values[invalid].any()


class _ChangedOutputs:
    """A session whose outputs a test changes."""

    def __init__(self, kind: str, **changes: Any) -> None:
        self._inner = session(kind)
        self._changes = changes
        self.artifact: Artifact = self._inner.artifact
        self.inputs: list[dict[str, torch.Tensor]] = []

    def on_device(self, inputs: Any, stream: Any = None) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def block() -> Any:
            self.inputs.append(dict(inputs))
            with self._inner.on_device(inputs, stream) as outputs:
                changed = {name: value.clone() for name, value in outputs.items()}
                for name, change in self._changes.items():
                    change(changed[name])
                yield changed

        return block()

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("where", ["boxes", "scores", "masks"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_without_a_number_are_dropped_and_counted(where: str, value: float) -> None:
    def corrupt(values: torch.Tensor) -> None:
        values[0, 1] = value

    predictor = DevicePredictor(_ChangedOutputs("demo", **{where: corrupt}))
    result = predictor.predict(torch.from_numpy(models.photos(1)))
    assert int(result.dropped[0]) == 1
    assert not bool(result.valid[0, 1])
    assert result.masks is not None
    for values in (result.boxes, result.scores, result.masks):
        assert bool(torch.isfinite(values).all())
    clean = DevicePredictor(session("demo")).predict(torch.from_numpy(models.photos(1)))
    assert int(result.counts[0]) == int(clean.counts[0]) - 1
    assert result.to_host()[0].dropped == 1


def test_uncertified_results_are_reported() -> None:
    def undecided(values: torch.Tensor) -> None:
        values[:] = 3

    result = DevicePredictor(_ChangedOutputs("demo", nms_open=undecided)).predict(sample())
    assert result.nms_open.tolist() == [3]
    assert not result.to_host()[0].exact


def test_padding_stays_zero_when_a_canvas_is_reused() -> None:
    """A fixed canvas: a wide photo, then a tall one in the same memory."""
    changed = _ChangedOutputs("demo")
    manifest = replace(changed.artifact.manifest, height=192, width=288)
    changed.artifact = replace(changed.artifact, manifest=manifest)
    predictor = DevicePredictor(changed)
    wide = torch.full((100, 150, 3), 255, dtype=torch.uint8)
    tall = torch.full((150, 60, 3), 255, dtype=torch.uint8)
    predictor.predict(wide)
    first = changed.inputs[0]["images"]
    assert changed.inputs[0]["image_hw"].tolist() == [[160, 240]]
    assert first[0, 0].count_nonzero() == 160 * 240
    predictor.predict(tall)
    second = changed.inputs[1]["images"]
    assert second.data_ptr() == first.data_ptr()
    assert changed.inputs[1]["image_hw"].tolist() == [[192, 76]]
    assert second[0, 0].count_nonzero() == 192 * 76
    assert not second[0, :, :, 76:].any()


def test_a_fixed_batch_is_padded() -> None:
    changed = _ChangedOutputs("demo")
    changed.artifact = replace(
        changed.artifact, manifest=replace(changed.artifact.manifest, batch=2)
    )
    predictor = DevicePredictor(changed)
    result = predictor.predict(sample())
    assert changed.inputs[0]["images"].shape[0] == 2
    assert not changed.inputs[0]["images"][1].any()
    assert (len(result), tuple(result.boxes.shape[:1]), len(result.to_host())) == (1, (1,), 1)
    with pytest.raises(UsageError, match=r"frames 3: .*--batch 3"):
        predictor.predict(torch.from_numpy(models.photos(3)))


def test_results_do_not_change_with_later_calls() -> None:
    predictor = DevicePredictor(session("demo"))
    first = predictor.predict(sample())
    copies = {name: getattr(first, name).clone() for name in ("boxes", "scores", "masks", "valid")}
    predictor.predict(torch.from_numpy(models.photos(3)[2:]))
    for name, values in copies.items():
        assert torch.equal(getattr(first, name), values)
    predictor = DevicePredictor(session("boxes"))
    frames = [torch.from_numpy(photo) for photo in models.photos(3)]
    expected = [predictor.predict(frame).to_host()[0] for frame in frames]
    with ThreadPoolExecutor(4) as threads:
        result = list(
            threads.map(lambda i: predictor.predict(frames[i % 3]).to_host()[0], range(12))
        )
    for index, ours in enumerate(result):
        same(ours, expected[index % 3])


HWC = torch.zeros((20, 30, 3), dtype=torch.uint8)


def test_invalid_frames(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for argument, message in [
        ([], "empty list"),
        ("photo.jpg", "got str; pass photos and files to Predictor"),
        ([HWC, "x"], r"frames\[1\]: expected a device array, got str"),
        (HWC.float(), "uint8.*float32"),
        (HWC[..., 0], r"got .*\[20, 30\]"),
        (HWC[None, None], r"\[1, 1, 20, 30, 3\]"),
        ([HWC[None]], r"frames\[0\].*\[1, 20, 30, 3\]"),
        (HWC[..., :2], "expected three channels"),
        (HWC[:3], "pass layout="),
        (HWC[:0], "at least one pixel"),
        (HWC[None][:0], "at least one frame"),
    ]:
        with subtests.test(message), pytest.raises(UsageError, match=message):
            DevicePredictor(session("demo")).predict(argument)
    predictor = DevicePredictor(session("demo"))
    with pytest.raises(UsageError, match="on the CPU, which has no streams"):
        predictor.predict(HWC, stream=7)
    with pytest.raises(UsageError, match="--score-threshold"):
        predictor.predict(HWC, score_threshold=0.001)
    with pytest.raises(ImageError, match="frame 0: a photo of 1x3000"):
        predictor.predict(torch.zeros((1, 3000, 3), dtype=torch.uint8))
    with pytest.raises(UsageError, match="frame: expected 0 to 0, got 1"):
        predictor.predict(HWC).paste(1)
    with pytest.raises(UsageError, match="mask threshold"):
        predictor.predict(HWC).paste(mask_threshold=1.5)
    with pytest.raises(UsageError, match=r"rows: expected a slice as slice\(0, 20\), got 3"):
        predictor.predict(HWC).paste(rows=3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no mask head"):
        DevicePredictor(session("boxes")).predict(HWC).paste()
    model = tmp_path / "m.onnx"
    with pytest.raises(ArtifactError, match="no such file"):
        DevicePredictor.open(model)
    model.touch()
    with pytest.raises(UsageError, match="build an engine from it"):
        DevicePredictor.open(model)
    inputs = {"images": torch.empty(1, 3, 64, 64, device="meta"), "image_hw": torch.ones(1, 2)}
    with (
        pytest.raises(UsageError, match="images: the session is on cpu, the array on meta"),
        session("boxes").on_device(inputs),
    ):
        pass
    with (
        pytest.raises(UsageError, match="device cpu has no streams"),
        session("boxes").on_device({}, 3),
    ):
        pass
    predictor = DevicePredictor(session("boxes"))
    frame = torch.from_numpy(np.ascontiguousarray(models.photos(1)[0][:3, :200]))
    assert predictor.predict(frame, layout="hwc").frames_hw == ((3, 200),)
    with pytest.raises(UsageError, match="three channels"):
        predictor.predict(HWC, layout="chw")
    with pytest.raises(UsageError, match="layout 'hwc' or 'chw'"):
        predictor.predict(frame, layout="nhwc")  # type: ignore[arg-type]


def test_array_api_compat_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "array_api_compat", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'maskport\[device\]'"):
        DevicePredictor(session("demo")).predict(HWC)


def test_importing_it_loads_numpy_and_pillow_only() -> None:
    code = "import runtime.device.predictor, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=models.ROOT, capture_output=True, text=True, check=True
    )
    heads = {name.split(".")[0] for name in done.stdout.split()}
    assert not heads & {"torch", "cupy", "array_api_compat", "tensorrt", "onnxruntime", "cv2"}


def test_opens_a_checkpoint() -> None:
    path = models.ROOT / "examples/demo/shapes.pth"
    with DevicePredictor.open(path, device="cpu") as predictor:
        assert predictor.artifact.path == path
        assert predictor.artifact.manifest.lowering == "native"
        assert predictor.spec.mask is not None
