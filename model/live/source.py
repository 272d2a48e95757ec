"""A live module, the code that builds one, or a checkpoint, behind one function."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from model.checkpoint import Checkpoint, load
from model.errors import UsageError
from model.live.builder import Builder
from model.live.read import LiveModel, read_live
from model.spec_options import SpecOptions

AnyModel = Checkpoint | LiveModel


def open_model(
    source: str | Path | nn.Module | None,
    options: SpecOptions | None = None,
    config: Path | None = None,
    builder: Builder | None = None,
    canvas_hw: tuple[int, int] | None = None,
) -> AnyModel:
    """Read a model.

    Args:
        source: a live module, or a weights file; None with a builder whose module has its weights.
        options: see `model.checkpoint.load` and `read_live`.
        config: the framework's configuration, of a weights file without a builder.
        builder: the code that builds the module which the weights are loaded into; it runs.
        canvas_hw: a canvas that a live module's body accepts; None takes any.

    Raises:
        UsageError: nothing to read, or options that exclude each other.
        ModelError: see `read_live` and `Builder.load`.
        CheckpointError: see `model.checkpoint.load`.
    """
    is_file = isinstance(source, str | os.PathLike)
    if config is not None and (builder is not None or not is_file):
        raise UsageError(f"--config {config}: a live model has its own values; leave it out")
    if builder is not None:
        if not is_file and source is not None:
            raise UsageError("builder: expected a weights file, or a live module without a builder")
        return builder.load(Path(source) if is_file else None, options, canvas_hw)  # type: ignore[arg-type]
    if source is None:
        raise UsageError("expected a weights file, or --model with the code of the model")
    if is_file:
        return load(source, options, config)  # type: ignore[arg-type]
    return read_live(source, options, canvas_hw)
