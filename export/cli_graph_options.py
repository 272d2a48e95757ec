"""The graph options of `maskport export`, parsed and checked."""

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
    """The shape of `--size` and `--batch`; the default batch of a TensorRT graph is 1.

    Raises:
        UsageError: not a size or a batch, or a range for a target whose batch is dynamic.
    """
    fixed, batch_range = _batch(batch, target)
    if size is None:
        return GraphShape(fixed, batch_range=batch_range)
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(f"--size: expected HEIGHTxWIDTH like 800x1344, got '{size}'")
    return GraphShape(fixed, int(match[1]), int(match[2]), batch_range)


def _batch(text: str | None, target: Target) -> tuple[int | None, tuple[int, int, int] | None]:
    """A fixed batch, or a range, or neither (dynamic)."""
    if text is None:
        return (1 if target.engine else None), None
    match = _BATCH.fullmatch(text)
    if match is None:
        raise UsageError(f"--batch: expected a number like 4 or a range like 1:4:8, got '{text}'")
    if match[2] is None:
        return int(match[1]), None
    if not target.engine:
        raise UsageError(
            f"--batch {text}: a range is only for TensorRT; leave --batch out for a dynamic batch"
        )
    low, optimal, high = (int(part) for part in text.split(":"))
    return (low, None) if low == high else (None, (low, optimal, high))


def native_options(
    rounds: str | None, target: Target, max_sampling: int | None = None
) -> NativeOptions | None:
    """The limits of `--nms-rounds` and `--max-sampling`, or None for the defaults.

    Raises:
        UsageError: a count out of range, or a target whose lowering has no such limit.
    """
    if rounds is None and max_sampling is None:
        return None
    if target.lowering != "native":
        option = "--nms-rounds" if rounds else "--max-sampling"
        raise UsageError(f"{option}: only for TensorRT targets; leave it out for {target.name}")
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
    """The opset to trace with.

    Args:
        opset: of the user; None: the default.
        precision: of the file; BF16 files are traced with the default and converted to opset 22.

    Raises:
        UsageError: an opset that the lowerings or the precision do not support.
    """
    if precision == "bf16" and opset is not None:
        if opset != BF16_OPSET:
            raise UsageError(
                f"--opset {opset}: --precision bf16 needs opset {BF16_OPSET}, the first with BF16 "
                "convolutions; leave --opset out"
            )
        opset = None
    if opset is None:
        return DEFAULT_OPSET
    if opset not in OPSETS:
        raise UsageError(
            f"--opset: expected one of {', '.join(map(str, OPSETS))}, got {opset} "
            "(ONNX Runtime has no RoiAlign kernel for opset 22)"
        )
    return opset
