"""The lower bound of a GPU, and the time of each stage of one photo."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.checkpoint import Checkpoint
from runtime.postprocessing.from_raw import from_raw, raw_rows
from runtime.preprocessing.canvas import Canvas, to_canvas
from runtime.sessions.session import Outputs

# Of R50-FPN at 800x1344 with 100 detections: `bench/cost.py`. The weights are read once a call.
MULTIPLY_ADDS = 267.4e9
WEIGHT_BYTES = 178e6


def describe(device: str) -> str:
    """The GPU and the libraries' versions."""
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if device == "cpu":
        return f"A test of the program on a CPU, not a result. {versions}."
    gpu = torch.cuda.get_device_properties(0)
    major, minor = torch.cuda.get_device_capability(0)
    return (
        f"{gpu.name}, sm{major}{minor}, {gpu.total_memory / 2**30:.0f} GiB, "
        f"CUDA {torch.version.cuda}; {versions}."
    )


def stage_rows(
    checkpoint: Checkpoint,
    run: Callable[[Canvas], Outputs] | None,
    picture: npt.NDArray[np.uint8],
    hw: tuple[int, int],
    repeats: int,
) -> list[list[str]]:
    """Times of preprocessing, of the copy to the GPU, and of postprocessing."""
    if run is None:
        return []
    spec = checkpoint.spec
    canvas = to_canvas([picture], spec.preprocess, hw, 1)
    raw = raw_rows(run(canvas), 0)
    size = int(canvas.image_hw[0, 0]), int(canvas.image_hw[0, 1])
    photo_hw = (picture.shape[0], picture.shape[1])
    stages: dict[str, Callable[[], Any]] = {
        "preprocess (resize to the canvas)": lambda: to_canvas([picture], spec.preprocess, hw, 1),
        "paste and run lengths": lambda: from_raw(raw, spec, photo_hw, size).rle(),
    }
    if torch.cuda.is_available():
        stages["copy of the canvas to the GPU"] = lambda: _copied(canvas)
    rows = []
    for name, stage in stages.items():
        times = [_ms(stage) for _ in range(repeats)]
        rows.append([name, *(f"{v:.2f}" for v in np.percentile(times, (50, 99)))])
    return rows


def _copied(canvas: Canvas) -> None:
    torch.from_numpy(canvas.images).to("cuda")
    torch.cuda.synchronize()


def _ms(stage: Callable[[], Any]) -> float:
    started = time.perf_counter()
    stage()
    return 1e3 * (time.perf_counter() - started)


def floor(device: str, batches: list[int]) -> str:
    """Lower bound in milliseconds for exact convolutions on this GPU."""
    if device == "cpu":
        return "No lower bound without a GPU."
    fp32, fp16 = _flops(torch.float32), _flops(torch.float16)
    bandwidth = _bytes_per_second()
    lines = [
        f"Measured on this GPU: {fp32 / 1e12:.0f} TFLOP/s in FP32 (TF32 off), "
        f"{fp16 / 1e12:.0f} in FP16, {bandwidth / 1e9:.0f} GB/s. The convolutions and products "
        f"({MULTIPLY_ADDS / 1e9:.0f} G multiply-adds a photo at 800x1344) then need at least:",
        "",
    ]
    for batch in batches:
        work = 2 * MULTIPLY_ADDS * batch
        reading = 1e3 * WEIGHT_BYTES / bandwidth
        lines.append(
            f"- batch {batch}: {1e3 * work / fp32:.2f} ms in FP32, {1e3 * work / fp16:.2f} ms in "
            f"FP16; reading the FP32 weights alone {reading:.2f} ms"
        )
    return "\n".join(lines)


def _flops(dtype: torch.dtype) -> float:
    """FLOP/s of a large product, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = False
    side, repeats = 8192, 10
    left = torch.randn(side, side, device="cuda", dtype=dtype)
    return 2 * side**3 * repeats / _seconds(lambda: left @ left, repeats)


def _bytes_per_second() -> float:
    source = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() * 20 / _seconds(lambda: target.copy_(source), 20)


def _seconds(work: Callable[[], Any], repeats: int) -> float:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
