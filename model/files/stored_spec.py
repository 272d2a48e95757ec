"""The spec that `maskport convert` stores with the weights, in the header of a `.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model.errors import CheckpointError, SpecError
from model.spec import ModelSpec
from model.spec_json import from_json, to_json

_KEY = "maskport.spec"


def header_of(spec: ModelSpec) -> dict[str, str]:
    """The metadata to write into a file's header."""
    return {"format": "pt", _KEY: to_json(spec)}


def stored_spec(header: Mapping[str, str], path: Path) -> ModelSpec | None:
    """The spec in the header of `path`; None if it has none.

    Raises:
        CheckpointError: the stored spec is damaged.
    """
    if _KEY not in header:
        return None
    try:
        return from_json(header[_KEY])
    except SpecError as error:
        raise CheckpointError(f"{path}: damaged header ({error}); convert it again") from error
