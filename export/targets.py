"""What each `--target` asks of the exported graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.errors import UsageError
from model.spec import ModelSpec, PreprocessSpec

MAX_TOP_K = 3840  # of TensorRT's TopK layer; `passes/split_top_k.py` makes several of a larger one
# Enough for every photo seen (335 of 6,000 pairs passed where fewer than 100 survived), and a
# quarter of the matrix that 2,000 would take. `candidates_cut` tells when it is not enough.
_NATIVE_CANDIDATES = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of program that will run the file.

    `engine` is whether the file is compiled by `export.engine` before it runs; `suffix` ends the
    default name of the file.
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
        UsageError: there is none.
    """
    if name not in TARGETS:
        raise UsageError(f"--target: expected one of {', '.join(TARGETS)}, got '{name}'")
    return TARGETS[name]


def native_candidates(spec: ModelSpec) -> int:
    """How many boxes reach the last NMS by default in the `native` lowering."""
    wanted = max(_NATIVE_CANDIDATES, 4 * spec.box.detections)
    return min(wanted, spec.box.candidates)


def landscape_hw(pre: PreprocessSpec) -> tuple[int, int]:
    """The canvas of landscape photos: the resize limits, rounded up to the divisor, in pixels."""
    divisor = pre.size_divisor
    return -(-pre.short_side // divisor) * divisor, -(-pre.long_side // divisor) * divisor
