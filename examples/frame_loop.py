"""A frame loop of video analytics: frames, detections and tracks stay in device memory.

A decoder that leaves its frames on the GPU (PyNvVideoCodec, DALI, VPF, …) returns uint8 arrays with
DLPack, as `camera` does here. Only one small table is copied to the host, after the last frame.

    python examples/frame_loop.py --device cuda
    python examples/frame_loop.py --device cpu --frames 4
    python examples/frame_loop.py model.sm89.engine
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from model.checkpoint import SpecOptions, load
from model.errors import MaskportError
from runtime.device.detections import DeviceDetections
from runtime.device.predictor import DevicePredictor
from runtime.sessions.torch import TorchSession
from runtime.sources.photos import decode

WEIGHTS = ROOT / "examples/demo/shapes.pth"
NAMES = ROOT / "examples/demo/shapes.names"
PHOTO = ROOT / "export/data/shapes.jpg"
ROWS = slice(0, 20)  # sorted by score; no frame of interest has more
SHOWN_SCORE = 0.5
SAME_IOU = 0.3
STEP_PX = 6


def camera(count: int, device: str) -> Iterator[torch.Tensor]:
    """Frames of a camera that pans over the sample photo: uint8 [3, h, w] RGB on the device."""
    photo = torch.from_numpy(decode(PHOTO).copy()).to(device).permute(2, 0, 1)
    for index in range(count):
        yield torch.roll(photo, index * STEP_PX, dims=2).contiguous()


class Tracks:
    """Numbers each row like the row of the previous frame that its mask overlaps most."""

    def __init__(self, device: str) -> None:
        self._masks: torch.Tensor | None = None
        self._numbers = torch.zeros(0, dtype=torch.int64, device=device)
        self._next = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, masks: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Track numbers, int64 [rows], of bool [rows, h, w] masks; -1 for invalid rows."""
        flat = masks.flatten(1).float()
        new = self._next + torch.cumsum(valid.long(), 0) - 1
        numbers = new
        if self._masks is not None:
            shared = flat @ self._masks.T
            union = flat.sum(1)[:, None] + self._masks.sum(1) - shared
            iou, before = (shared / union.clamp(min=1)).max(dim=1)
            numbers = torch.where(iou >= SAME_IOU, self._numbers[before], new)
        numbers = torch.where(valid, numbers, torch.full_like(numbers, -1))
        self._masks, self._numbers = flat, numbers
        self._next = torch.maximum(self._next, numbers.max() + 1)
        return numbers


def measure(detections: DeviceDetections, tracks: Tracks) -> torch.Tensor:
    """One frame's table on the device, float32 [rows, 4]: track, label, score, area in pixels."""
    masks = detections.paste(rows=ROWS)
    numbers = tracks.update(masks, detections.valid[0, ROWS])
    labels, scores = detections.labels[0, ROWS], detections.scores[0, ROWS]
    columns = (numbers, labels, scores, masks.flatten(1).sum(1))
    return torch.stack([column.float() for column in columns], dim=1)


def open_predictor(model: Path | None, device: str) -> DevicePredictor:
    """Open an engine or a checkpoint; without one the demo's weights."""
    if model is not None:
        return DevicePredictor.open(model, device=device)
    names = tuple(NAMES.read_text("utf-8").split())
    checkpoint = load(WEIGHTS, SpecOptions(short_side=320, long_side=533, names=names))
    return DevicePredictor(TorchSession(checkpoint, device, mode="static"))


def run(model: Path | None, device: str, frames: int) -> np.ndarray:
    """Process `frames` frames; return their tables, float32 [frames, rows, 4]."""
    with open_predictor(model, device) as predictor:
        names, tracks, tables = predictor.spec.classes.names, Tracks(device), []
        started = time.perf_counter()
        for frame in camera(frames, device):
            detections = predictor.predict(frame, score_threshold=SHOWN_SCORE)
            tables.append(measure(detections, tracks))
        table: np.ndarray = torch.stack(tables).cpu().numpy()  # the one copy to the host
        seconds = time.perf_counter() - started
    for track in np.unique(table[..., 0][table[..., 0] >= 0]).astype(int):
        rows = table[table[..., 0] == track]
        print(
            f"track {track:3d}  {names[int(rows[0, 1])]:<12} in {len(rows)} frames, "
            f"score {rows[:, 2].max():.2f}, area {rows[:, 3].mean():.0f} px"
        )
    print(f"{frames} frames on {device}: {frames / seconds:.1f} frames/s")
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the loop; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help=".engine or checkpoint")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu (default: cuda)")
    parser.add_argument("--frames", type=int, default=30, help="number of frames (default: 30)")
    arguments = parser.parse_args(argv)
    if arguments.frames < 1:
        parser.error(f"--frames: expected at least 1, got {arguments.frames}")
    try:
        run(arguments.model, arguments.device, arguments.frames)
    except MaskportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
