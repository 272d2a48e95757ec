"""Frames on a real GPU: no wait of the host, and what the CPU finds in the same photos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from runtime.device.predictor import DevicePredictor
from runtime.device.resize import resize
from runtime.device.workspace import Workspace
from runtime.predictor import Predictor
from runtime.preprocessing.canvas import resize as resize_on_the_host
from runtime.sessions.torch import Mode, TorchSession
from tests.runtime.device import models, test_device_keypoints, test_device_paste, test_resize
from tests.runtime.device.test_resize import INTERPOLATIONS, SIZES

pytestmark = pytest.mark.gpu


@contextmanager
def no_waiting() -> Iterator[None]:
    """PyTorch raises where the host would wait for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_debug_mode_notices_a_copy() -> None:
    values = torch.ones(3, device="cuda")
    with no_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        values.sum().item()


@pytest.mark.parametrize("mode", ["static", "cuda-graph"])
@pytest.mark.parametrize("kind", models.KINDS)
def test_finds_what_the_cpu_finds(kind: str, mode: Mode) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    photos = models.photos(2)
    on_cpu = TorchSession(models.checkpoint(kind), mode="static")
    expected = Predictor(on_cpu, on_uncertified="ignore").predict(list(photos), batch_size=2)
    predictor = DevicePredictor(TorchSession(models.checkpoint(kind), "cuda", mode))
    frames, stream = torch.from_numpy(photos).cuda(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    predictor.predict(frames, stream)  # constants, kernels and graphs are made
    with no_waiting():
        detections = predictor.predict(frames, stream)
        with torch.cuda.stream(stream):
            masks = None if detections.masks is None else [detections.paste(i) for i in range(2)]
    stream.synchronize()
    assert detections.boxes.is_cuda
    for index, (ours, theirs) in enumerate(zip(detections.to_host(), expected, strict=True)):
        if kind == "demo":  # random weights leave ties that rounding turns
            assert ours.names == theirs.names
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.05)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
        if masks is not None:
            valid = detections.valid[index]
            np.testing.assert_array_equal(masks[index][valid].cpu().numpy(), ours.masks)
            assert not bool(masks[index][~valid].any())


def test_a_new_size_does_not_wait_either() -> None:
    predictor = DevicePredictor(TorchSession(models.checkpoint("boxes"), "cuda", "static"))
    frames = torch.from_numpy(models.photos(1)).cuda()
    predictor.predict(frames)
    given = frames[:, :300, :300].contiguous()
    torch.cuda.synchronize()
    library = predictor._workspaces[next(iter(predictor._workspaces))].library
    workspace = Workspace(library, given)
    with no_waiting():
        resize(given, "hwc", (96, 96), predictor.spec.preprocess, workspace)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize(("source", "target"), SIZES.values(), ids=SIZES)
def test_the_resize_is_the_hosts(
    kind: str, source: tuple[int, int], target: tuple[int, int]
) -> None:
    from runtime.device.library import library_of

    spec = test_resize.PreprocessSpec(interpolation=kind)  # type: ignore[arg-type]
    given = test_resize.frames(source, 2)
    on_gpu = torch.from_numpy(given).cuda()
    resized = resize(on_gpu, "hwc", target, spec, Workspace(library_of(on_gpu), on_gpu))
    expected = np.stack([resize_on_the_host(frame, target, spec) for frame in given])
    np.testing.assert_array_equal(resized.cpu().numpy(), expected)


@pytest.mark.parametrize("rule", test_device_paste.RULES.values(), ids=test_device_paste.RULES)
def test_pasted_pixels_are_the_hosts(rule: test_device_paste.MaskRule) -> None:
    from runtime.device.library import library_of
    from runtime.device.paste import paste

    boxes = np.array(list(test_device_paste.BOXES.values()), np.float32)
    probs = test_device_paste.masks("close-calls", len(boxes), 28, rule.threshold)
    given = [torch.from_numpy(values).cuda() for values in (probs, boxes)]
    pasted = paste(library_of(given[0]).xp, *given, test_device_paste.HW, rule)
    expected = test_device_paste.on_the_host(probs, boxes, rule)
    np.testing.assert_array_equal(pasted.cpu().numpy(), expected)


def test_keypoints_are_the_hosts() -> None:
    from runtime.device.keypoints import decode_on_device
    from runtime.device.library import library_of
    from runtime.postprocessing.keypoints import decode

    boxes = test_device_keypoints.BOXES
    maps = test_device_keypoints.heatmaps(len(boxes))
    given = [torch.from_numpy(values).cuda() for values in (maps, boxes)]
    decoded = decode_on_device(library_of(given[0]).xp, *given, test_device_keypoints.MOST_HW)
    np.testing.assert_allclose(decoded.cpu().numpy(), decode(maps, boxes), rtol=1e-5, atol=1e-4)


def test_two_streams_at_once() -> None:
    predictor = DevicePredictor(TorchSession(models.checkpoint("demo"), "cuda", "static"))
    frames = [torch.from_numpy(photo).cuda() for photo in models.photos(3)]
    expected = [predictor.predict(frame).to_host()[0] for frame in frames]
    streams = [torch.cuda.Stream() for _ in frames]
    results = []
    for _ in range(5):
        for frame, stream in zip(frames, streams, strict=True):
            stream.wait_stream(torch.cuda.current_stream())
            results.append(predictor.predict(frame, stream))
    torch.cuda.synchronize()
    for index, ours in enumerate(results):
        np.testing.assert_allclose(ours.to_host()[0].boxes, expected[index % 3].boxes, atol=1e-3)


def test_arrays_of_cupy() -> None:
    cupy = pytest.importorskip("cupy")
    photos = models.photos(1)
    predictor = DevicePredictor(TorchSession(models.checkpoint("demo"), "cuda", "static"))
    expected = predictor.predict(torch.from_numpy(photos).cuda())
    detections = predictor.predict(cupy.asarray(photos))
    assert isinstance(detections.boxes, cupy.ndarray)
    assert detections.to_host()[0].names == expected.to_host()[0].names
    np.testing.assert_array_equal(cupy.asnumpy(detections.paste()), expected.paste().cpu().numpy())
