"""Open a checkpoint: tensors and the spec they imply, with every assumption named."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.errors import CheckpointError, SpecError
from model.families import torchvision as torchvision_dialect
from model.families.dialect import Assumption, Dialect, Reading
from model.mask_rcnn import MaskRCNN
from model.spec import ModelSpec
from model.spec_options import SpecOptions, apply, read_spec_file, was_said
from model.weights_file import read_tensors, sha256_of

__all__ = ["DIALECTS", "Checkpoint", "SpecOptions", "load", "read_spec_file"]

DIALECTS: tuple[Dialect, ...] = (torchvision_dialect.DIALECT,)
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read: `tensors` bear the names of `MaskRCNN`'s state dict."""

    path: Path
    sha256: str
    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    assumptions: tuple[Assumption, ...]

    def build(self) -> MaskRCNN:
        """The network in eval mode with these weights."""
        with torch.device("meta"):
            model = MaskRCNN(self.spec)
        model = MaskRCNN(self.spec) if _has_meta_only_buffers(model) else model
        model.load_state_dict(dict(self.tensors), strict=False)
        return model.eval().requires_grad_(False)


def load(path: str | Path, options: SpecOptions | None = None) -> Checkpoint:
    """Read a checkpoint safely and recognise its dialect and architecture.

    Args:
        path: a `.pth`, `.pt` or `.safetensors` file.
        options: what the weights cannot tell and the user wants to say.

    Raises:
        CheckpointError: the file cannot be read, is of no known dialect, or lacks tensors.
        UsageError: an option has an impossible value, or does not fit the weights.
        SpecError: the same of `options.overrides`.
    """
    path, options = Path(path), options or SpecOptions()
    original = read_tensors(path)
    sha256 = sha256_of(path)
    dialect = next((d for d in DIALECTS if d.recognises(original)), None)
    if dialect is None:
        raise CheckpointError(_unknown_dialect(path, original))
    reading = _read(dialect, original, sha256, path)
    spec = apply(reading.spec, options)
    assumed = tuple(a for a in reading.assumptions if not was_said(a.field, options))
    _refuse_guesses(assumed, path)
    tensors = {dialect.canonical(name): t for name, t in original.items()}
    if len(tensors) < len(original):
        raise CheckpointError(f"{path}: holds tensors twice, under their old and their new names")
    _check_keys(path, spec, tensors, dialect)
    return Checkpoint(path, sha256, spec, tensors, original, assumed)


def _read(dialect: Dialect, tensors: Mapping[str, Tensor], sha256: str, path: Path) -> Reading:
    try:
        return dialect.read(tensors, sha256, path)
    except SpecError as error:
        raise CheckpointError(f"{path}: its shapes are of no network ({error})") from error


def _refuse_guesses(assumed: Iterable[Assumption], path: Path) -> None:
    missing = [a for a in assumed if a.must_be_said]
    if missing:
        fields = ", ".join(f"'{a.field}'" for a in missing)
        raise CheckpointError(
            f"{path}: the {missing[0].what} {missing[0].value} cannot be told from the weights; "
            f"say {fields} in a file for {missing[0].option}"
        )


def _has_meta_only_buffers(model: MaskRCNN) -> bool:
    # Anchors, mean and std are computed when the module is made and are in no checkpoint.
    return any(b.is_meta for b in model.buffers())


def _check_keys(
    path: Path, spec: ModelSpec, tensors: Mapping[str, Tensor], dialect: Dialect
) -> None:
    """Every tensor that the spec's network needs is there, with its shape, and no other."""
    expected = _network_shapes(spec, path)
    # FrozenBatchNorm has no such counter and inference does not read it.
    missing = [n for n in expected if n not in tensors and not n.endswith(_COUNTER)]
    extra = [n for n in tensors if n not in expected]
    if missing or extra:
        raise CheckpointError(f"{path}: {_key_report(missing, extra, tensors, expected, dialect)}")
    for name, tensor in tensors.items():
        wanted = expected[name]
        found = f"{path}: tensor '{dialect.original(name)}' has"
        if tuple(tensor.shape) != wanted:
            raise CheckpointError(
                f"{found} shape {tuple(tensor.shape)}, expected {wanted} for {spec.architecture}"
            )
        if not (tensor.is_floating_point() or name.endswith(_COUNTER)):
            raise CheckpointError(f"{found} type {tensor.dtype}, expected floating point")


def _network_shapes(spec: ModelSpec, path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            return {n: tuple(t.shape) for n, t in MaskRCNN(spec).state_dict().items()}
    except (RuntimeError, ValueError) as error:  # sizes that no layer can have
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: no such network can be built ({reason})") from error


def _key_report(
    missing: list[str],
    extra: list[str],
    given: Iterable[str],
    expected: Iterable[str],
    dialect: Dialect,
) -> str:
    parts = []
    if missing:
        name = dialect.original(missing[0])
        close = difflib.get_close_matches(name, [dialect.original(n) for n in extra or given], n=1)
        hint = f" (closest in the file: '{close[0]}')" if close else ""
        parts.append(f"missing tensors: {len(missing)}, first '{name}'{hint}")
    if extra:
        name = dialect.original(extra[0])
        known = [dialect.original(n) for n in missing or expected]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (closest expected name: '{close[0]}')" if close else ""
        parts.append(f"unexpected tensors: {len(extra)}, first '{name}'{hint}")
    return "; ".join(parts) + f"; expected a {dialect.name} Mask R-CNN or Faster R-CNN"


def _unknown_dialect(path: Path, tensors: Mapping[str, Tensor]) -> str:
    found = ", ".join(f"'{n}'" for n in list(tensors)[:3])
    known = "; ".join(f"{d.name} has '{d.landmark}'" for d in DIALECTS)
    return f"{path}: not a Mask R-CNN that is known here (it has {found}, …; {known})"
