"""The spec that `maskport convert` keeps with the weights, in the header of a `.safetensors`."""

from __future__ import annotations

from pathlib import Path

from model.errors import CheckpointError, SpecError
from model.spec import ModelSpec
from model.spec_json import from_json, to_json

_KEY = "maskport.spec"


def header_of(spec: ModelSpec) -> dict[str, str]:
    """What to write into a file's header."""
    return {"format": "pt", _KEY: to_json(spec)}


def stored_spec(path: Path) -> ModelSpec | None:
    """The spec in a file's header; None where there is none, or where it is no `.safetensors`.

    Raises:
        CheckpointError: there is one, and it is damaged.
    """
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{path}: not a readable .safetensors file ({reason})") from error
    if _KEY not in header:
        return None
    try:
        return from_json(header[_KEY])
    except SpecError as error:
        raise CheckpointError(f"{path}: damaged header ({error}); convert it again") from error
