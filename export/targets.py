"""The export targets, and what each needs from the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import require_one_of
from model.spec import ModelSpec, PreprocessSpec

MAX_TOP_K = 3840  # of TensorRT's TopK layer; `passes/split_top_k.py` splits a larger one
# Enough for all 118 photos measured (at most 335 candidates passed where fewer than 100 survived
# NMS), with a quarter of the matrix of 2,000. `candidates_cut` reports when it is not enough.
_NATIVE_CANDIDATES = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A runtime to export for.

    `engine`: whether `export.engine` compiles the file before it runs. `suffix`: of the default
    output name.
    """

    name: str
    lowering: Literal["standard", "native"]
    engine: bool
    suffix: str


TARGETS = {
    target.name: target
    for target in (
        Target("onnxruntime", "standard", engine=False, suffix=".onnx"),
        Target("tensorrt", "native", engine=True, suffix=".trt.onnx"),
        Target("tensorrt-rtx", "native", engine=True, suffix=".rtx.onnx"),
    )
}


def target_named(name: str) -> Target:
    """The target of that name.

    Raises:
        UsageError: no such target.
    """
    require_one_of("--target", name, TARGETS)
    return TARGETS[name]


def native_candidates(spec: ModelSpec) -> int:
    """Default number of boxes that enter the final NMS in the `native` lowering."""
    return min(max(_NATIVE_CANDIDATES, 4 * spec.box.detections), spec.box.candidates)


def landscape_hw(pre: PreprocessSpec) -> tuple[int, int]:
    """The canvas of landscape photos: the resize limits, rounded up to the divisor, in pixels."""
    return pre.canvas_side(pre.short_side), pre.canvas_side(pre.long_side)
