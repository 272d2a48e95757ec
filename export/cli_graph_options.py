"""The options of `maskport export` that shape the graph, from text to values."""

from __future__ import annotations

import re
from dataclasses import replace

from export.passes.opset_22 import OPSET as BF16_OPSET
from export.targets import Target
from export.tracing import DEFAULT_OPSET, OPSETS, GraphShape
from model.errors import UsageError
from model.native.options import NativeOptions

_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")
_BATCH = re.compile(r"([0-9]{1,6})(:[0-9]{1,6}:[0-9]{1,6})?")
_MOST_SAMPLING = 32
_ROUNDS = re.compile(r"[0-9]{1,6}(,[0-9]{1,6})?")


def graph_shape(size: str | None, batch: str | None, target: Target) -> GraphShape:
    """The sizes that `--size` and `--batch` ask for; a TensorRT graph has a batch of 1 by default.

    Raises:
        UsageError: a size or a batch that is none, or a range where the batch is dynamic anyway.
    """
    fixed, span = _batch(batch, target)
    if size is None:
        return GraphShape(fixed, batch_range=span)
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(f"--size: expected HEIGHTxWIDTH like 800x1344, got '{size}'")
    return GraphShape(fixed, int(match[1]), int(match[2]), span)


def _batch(text: str | None, target: Target) -> tuple[int | None, tuple[int, int, int] | None]:
    """A fixed batch, or a range, or neither."""
    if text is None:
        return (1 if target.engine else None), None
    match = _BATCH.fullmatch(text)
    if match is None:
        raise UsageError(f"--batch: expected a number like 4 or a range like 1:4:8, got '{text}'")
    if match[2] is None:
        return int(match[1]), None
    if not target.engine:
        raise UsageError(
            f"--batch {text}: a range is for TensorRT; without --batch the file takes any batch"
        )
    low, usual, high = (int(part) for part in text.split(":"))
    return (low, None) if low == high else (None, (low, usual, high))


def native_options(
    rounds: str | None, target: Target, max_sampling: int | None = None
) -> NativeOptions | None:
    """What `--nms-rounds` and `--max-sampling` ask for, or None for the default.

    Raises:
        UsageError: not one or two counts, or a target that has neither rounds nor a budget of
            samples.
    """
    if rounds is None and max_sampling is None:
        return None
    if target.lowering != "native":
        said, what = ("--nms-rounds", "rounds") if rounds else ("--max-sampling", "such a limit")
        raise UsageError(f"{said}: only TensorRT's graph has {what}; leave it out")
    options = NativeOptions()
    if rounds is not None:
        match = _ROUNDS.fullmatch(rounds)
        counts = [int(part) for part in rounds.split(",")] if match else [0]
        if not all(1 <= count <= 1000 for count in counts):
            raise UsageError(f"--nms-rounds: expected 1 to 1000, like 64 or 64,20, got '{rounds}'")
        options = replace(options, proposal_rounds=counts[0], detection_rounds=counts[-1])
    if max_sampling is not None and not 1 <= max_sampling <= _MOST_SAMPLING:
        raise UsageError(f"--max-sampling: expected 1 to {_MOST_SAMPLING}, got {max_sampling}")
    return replace(options, max_sampling=max_sampling)


def checked_opset(opset: int | None, precision: str = "fp32") -> int:
    """The operator set to trace in, or the default.

    Args:
        opset: as asked for; a BF16 file is moved to operator set 22 when the rest is done.
        precision: of the file.

    Raises:
        UsageError: one that the lowerings are not written for, or that has no such precision.
    """
    if precision == "bf16" and opset is not None:
        if opset != BF16_OPSET:
            raise UsageError(
                f"--opset {opset}: with --precision bf16 the file is of operator set {BF16_OPSET}, "
                "the first whose convolutions take BF16; leave --opset out"
            )
        opset = None
    if opset is None:
        return DEFAULT_OPSET
    if opset not in OPSETS:
        raise UsageError(
            f"--opset: expected one of {', '.join(map(str, OPSETS))}, got {opset} "
            "(ONNX Runtime has no kernel for the RoiAlign of opset 22)"
        )
    return opset
