"""Options of an engine build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of one build; None keeps the library's default.

    Attributes:
        workspace_bytes: limit of the GPU scratch memory of one layer.
        optimization_level: 0 to 5; a higher level builds longer and may run faster.
        timing_cache: file of kernel timings, reused between builds (TensorRT only).
        version_compatible: later versions of the library can run the engine (TensorRT only).
        hardware_compatible: one of `HARDWARE_LEVELS`: other GPUs that can run it (TensorRT only).
        tf32: allow TF32 in FP32 convolutions; off by default, so that FP32 means FP32.
    """

    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    tf32: bool = False
