"""What can be asked of a quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calib.policy import Preset

Rest = Literal["fp32", "fp16"]
Rounding = Literal["learned", "nearest"]
DEFAULT_METHOD = "mse"


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantise.

    Attributes:
        format: "int8" or "fp8"; see `calib.formats`.
        rest: what the layers compute in that are not quantised.
        method: of choosing ranges; see `calib.observers.methods`.
        rounding: of the weights: learned on photos, or each to the nearest.
        equalise: how far channels are made alike before; 0 leaves them, see `calib.equalise`.
        writer: "tensorrt" or "onnxruntime"; None goes by the file's target.
        preset: which layers are quantised; see `calib.policy`.
        table: where the calibration table is; None puts it beside the output.
        import_cache: a TensorRT calibration cache to take the ranges from, instead of photos.
        budget: points of agreement AP that may be lost; None keeps what the policy keeps. See
            `calib.budget`.
        reference: what to agree with, a checkpoint or an ONNX file; None is the input graph.
        reduce_range: give weights 7 bits, so that no sum of two products overflows on a CPU without
            VNNI; None does so where this CPU needs it and the Q/DQ are for ONNX Runtime.
        threads: of the CPU; None takes all cores.
    """

    format: str = "int8"
    rest: Rest = "fp32"
    method: str = DEFAULT_METHOD
    rounding: Rounding = "learned"
    equalise: float = 0.0
    writer: str | None = None
    preset: Preset = "accurate"
    table: Path | None = None
    import_cache: Path | None = None
    budget: float | None = None
    reference: Path | None = None
    reduce_range: bool | None = None
    threads: int | None = None

    @property
    def learns_rounding(self) -> bool:
        """Whether photos are looked at for it: floats are rounded to nearest anyway."""
        return self.rounding == "learned" and self.format == "int8" and self.import_cache is None
