"""What a user may ask of an engine build."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of one build; None leaves the library's own default.

    Attributes:
        workspace_bytes: the most scratch memory that a layer may use on the GPU.
        optimisation_level: 0 to 5; higher builds longer and may run faster.
        timing_cache: file that remembers kernel timings between builds (TensorRT only).
        version_compatible: later versions of the library may run the engine (TensorRT only).
        hardware_compatible: one of `HARDWARE_LEVELS`, on which other GPUs it may run (TensorRT
            only).
        tf32: let FP32 convolutions use TF32 on the GPU; off, so that FP32 means FP32.
    """

    workspace_bytes: int | None = None
    optimisation_level: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: str = "none"
    tf32: bool = False
