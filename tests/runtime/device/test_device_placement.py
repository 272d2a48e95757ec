"""On PyTorch's fake CUDA tensors, which have a device and a shape but no values.

They show what CPU tensors cannot: a table on the host, an upload, and an output whose size must be
read from the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.spec import PreprocessSpec
from runtime.device.keypoints import decode_on_device
from runtime.device.library import library_of
from runtime.device.paste import paste
from runtime.device.resize import resize
from runtime.device.results import Placements, to_frames
from runtime.device.select import select
from runtime.device.workspace import Workspace
from runtime.masks.paste import MaskRule
from runtime.selection import Selection
from tests.runtime.device import models
from tests.runtime.device.test_resize import INTERPOLATIONS


class _OnOneDevice(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, outputs)) if isinstance(t, torch.Tensor)]
        assert all(t.device.type == "cuda" for t in tensors), f"{func}: a tensor on the host"
        return outputs


@contextmanager
def fake_cuda() -> Iterator[None]:
    with FakeTensorMode(), _OnOneDevice():
        yield


def workspace(like: torch.Tensor) -> Workspace:
    """A workspace that skips the upload of tables, whose values nothing reads."""
    library = library_of(like)

    def upload(table: np.ndarray, near: torch.Tensor) -> torch.Tensor:
        dtype = getattr(torch, table.dtype.name)
        return torch.empty(table.shape, dtype=dtype, device=near.device)

    library.upload = upload  # type: ignore[method-assign, assignment]
    return Workspace(library, like)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_resize(interpolation: Any) -> None:
    spec = PreprocessSpec(interpolation=interpolation)
    with FakeTensorMode():
        frames = torch.empty((2, 40, 50, 3), dtype=torch.uint8, device="cuda")
        tables = workspace(frames)
        resize(frames, "hwc", (23, 77), spec, tables)  # makes the tables
        with _OnOneDevice():
            result = resize(frames, "hwc", (23, 77), spec, tables, "bgr")
            canvas = tables.canvas((2, 3, 64, 96), "placements")
            canvas[:, :, :23, :77] = result
    assert (result.device.type, tuple(result.shape)) == ("cuda", (2, 3, 23, 77))


@pytest.mark.parametrize("rule", ["integer", "float", "resize"])
def test_paste(rule: Any) -> None:
    with fake_cuda():
        masks = torch.empty((5, 28, 28), device="cuda")
        boxes = torch.empty((5, 4), device="cuda")
        result = paste(library_of(masks).xp, masks, boxes, (50, 60), MaskRule(rule))
    assert (result.device.type, tuple(result.shape)) == ("cuda", (5, 50, 60))


@pytest.mark.parametrize("score", ["logit", "softmax"])
def test_keypoints(score: Any) -> None:
    with fake_cuda():
        maps = torch.empty((3, 17, 56, 56), device="cuda")
        boxes = torch.empty((3, 4), device="cuda")
        result = decode_on_device(library_of(maps).xp, maps, boxes, (40, 60), score)
    assert (result.device.type, tuple(result.shape)) == ("cuda", (3, 17, 3))


@pytest.mark.parametrize("to_image", ["scale", "clip", "round"])
def test_results(to_image: Any) -> None:
    spec = models.checkpoint("detectron2").spec
    spec = replace(spec, box=replace(spec.box, to_image=to_image))
    placements = Placements(((40, 60),), ((80, 120),), ((0, 0),))
    with FakeTensorMode():
        outputs = {
            "boxes": torch.empty((1, 8, 4), device="cuda"),
            "scores": torch.empty((1, 8), device="cuda"),
            "labels": torch.empty((1, 8), dtype=torch.int32, device="cuda"),
            "masks": torch.empty((1, 8, 28, 28), device="cuda"),
            **{
                name: torch.empty(1, dtype=torch.int32, device="cuda")
                for name in ("counts", "nms_open", "candidates_cut", "samples_cut")
            },
        }
        tables = workspace(outputs["boxes"])
        with _OnOneDevice():
            result = to_frames(outputs, spec, placements, tables)
            selection = Selection(
                score_threshold=0.3, classes=spec.classes.names[:2], min_area_px=1.0, top_k=4
            )
            result = select(result, selection, tables)
            dense = result.paste()
    assert tuple(dense.shape) == (8, 40, 60)
    assert {result.boxes.device.type, result.valid.device.type, dense.device.type} == {"cuda"}


def test_the_fake_tensors_detect_host_access() -> None:
    with fake_cuda():
        values = torch.empty(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            values[0].item()
        with pytest.raises(AssertionError, match="on the host"):
            values.to("cpu")
        with pytest.raises(AssertionError, match="on the host"):
            torch.ones(3)
