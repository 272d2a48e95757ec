"""Open a checkpoint: tensors and the spec they imply, with every assumption named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.closest_name import closest_name
from model.errors import CheckpointError, SpecError, UsageError
from model.families.detectron2 import dialect as detectron2_dialect
from model.families.dialect import Assumption, Dialect, Reading, Source
from model.families.matterport import dialect as matterport_dialect
from model.families.mmdetection import dialect as mmdetection_dialect
from model.families.torchvision import dialect as torchvision_dialect
from model.files.stored_spec import stored_spec
from model.files.weights_file import read_weights
from model.mask_rcnn import MaskRCNN
from model.spec import ModelSpec
from model.spec_options import SpecOptions, apply, read_spec_file, was_said

__all__ = ["DIALECTS", "Checkpoint", "SpecOptions", "load", "read_spec_file"]

DIALECTS: tuple[Dialect, ...] = (
    torchvision_dialect.DIALECT,
    detectron2_dialect.DIALECT,
    mmdetection_dialect.DIALECT,
    matterport_dialect.DIALECT,
)
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
    notes: tuple[str, ...] = ()

    def build(self) -> MaskRCNN:
        """The network in eval mode with these weights."""
        model = MaskRCNN(self.spec)
        model.load_state_dict(dict(self.tensors), strict=False)
        return model.eval().requires_grad_(False)


def load(
    path: str | Path, options: SpecOptions | None = None, config: Path | None = None
) -> Checkpoint:
    """Read a checkpoint safely and recognise its dialect and architecture.

    Args:
        path: a `.pth`, `.pt`, `.safetensors`, `.pkl` or `.h5` file.
        options: what the weights cannot tell and the user wants to say.
        config: the framework's own configuration of the model; None takes one of the name that
            the framework gives it, where it lies beside the weights.

    Raises:
        CheckpointError: the file cannot be read, is of no known dialect, or lacks tensors.
        UsageError: an option has an impossible value, or does not fit the weights.
        SpecError: the same of `options.overrides`.
    """
    path, options = Path(path), options or SpecOptions()
    weights = read_weights(path)
    given = weights.tensors
    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: no such file; expected the framework's configuration")
    kept = stored_spec(weights.header, path)
    dialect = _dialect(path, given, kept)
    if config is not None and (kept is not None or not dialect.config_names):
        whose = "a converted file, which keeps its own" if kept else f"{dialect.name}'s"
        raise UsageError(
            f"--config {config}: {path} is {whose}; only detectron2's checkpoints take one"
        )
    if kept is not None:
        original = {dialect.original(name, kept): tensor for name, tensor in given.items()}
        reading = Reading(kept, ())
    else:
        beside = None if config is not None else _config_beside(path, dialect)
        source = Source(
            path,
            weights.sha256,
            config or beside,
            weights.meta,
            tuple(given),
            options,
            beside is not None,
        )
        original = dialect.prepare(given, path)
        reading = _read(dialect, original, source)
    spec = apply(reading.spec, options)
    assumed = tuple(a for a in reading.assumptions if not was_said(a.field, options))
    _refuse_guesses(assumed, path)
    original = {n: t for n, t in original.items() if n not in reading.unused}
    original.update(reading.added)
    tensors = _matched(path, spec, original, dialect)
    return Checkpoint(path, weights.sha256, spec, tensors, original, assumed, reading.notes)


def _dialect(path: Path, tensors: Mapping[str, Tensor], kept: ModelSpec | None) -> Dialect:
    """Whose names the tensors have; of a converted file, whose names they had."""
    if kept is not None:
        found = next((d for d in DIALECTS if d.name == kept.dialect), None)
    else:
        found = next((d for d in DIALECTS if d.recognises(tensors)), None)
    if found is None:
        raise CheckpointError(_unknown_dialect(path, tensors))
    return found


def _config_beside(path: Path, dialect: Dialect) -> Path | None:
    beside = (path.parent / name for name in dialect.config_names)
    return next((config for config in beside if config.is_file()), None)


def _read(dialect: Dialect, tensors: Mapping[str, Tensor], source: Source) -> Reading:
    try:
        return dialect.read(tensors, source)
    except SpecError as error:
        what = "its shapes are" if source.config is None else f"it and {source.config.name} are"
        raise CheckpointError(
            f"{source.path}: {what} of no network ({error}); expected weights of a Mask R-CNN"
        ) from error


def _refuse_guesses(assumed: Iterable[Assumption], path: Path) -> None:
    missing = [a for a in assumed if a.must_be_said]
    if missing:
        fields = ", ".join(f"'{a.field}'" for a in missing)
        raise CheckpointError(
            f"{path}: the {missing[0].what} {missing[0].value} cannot be told from the weights; "
            f"say {fields} in a file for {missing[0].option}"
        )


def _matched(
    path: Path, spec: ModelSpec, tensors: Mapping[str, Tensor], dialect: Dialect
) -> dict[str, Tensor]:
    """Every tensor that the spec's network needs, with its shape, under the network's name."""
    expected = {
        dialect.original(name, spec): (name, shape)
        for name, shape in _network_shapes(spec, path).items()
    }
    # FrozenBatchNorm has no such counter and inference does not read it.
    missing = [n for n in expected if n not in tensors and not n.endswith(_COUNTER)]
    extra = [n for n in tensors if n not in expected]
    if missing or extra:
        raise CheckpointError(f"{path}: {_key_report(missing, extra, tensors, expected, dialect)}")
    for name, tensor in tensors.items():
        wanted = expected[name][1]
        found = f"{path}: tensor '{name}' has"
        if tuple(tensor.shape) != wanted:
            raise CheckpointError(
                f"{found} shape {tuple(tensor.shape)}, expected {wanted} for {spec.architecture}"
            )
        if not (tensor.is_floating_point() or name.endswith(_COUNTER)):
            raise CheckpointError(f"{found} type {tensor.dtype}, expected floating point")
    return {expected[name][0]: tensor for name, tensor in tensors.items()}


def _network_shapes(spec: ModelSpec, path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            return {n: tuple(t.shape) for n, t in MaskRCNN(spec).state_dict().items()}
    except (RuntimeError, ValueError) as error:  # sizes that no layer can have
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{path}: no such network can be built ({reason}); correct the sizes in the spec"
        ) from error


def _key_report(
    missing: list[str],
    extra: list[str],
    given: Iterable[str],
    expected: Iterable[str],
    dialect: Dialect,
) -> str:
    parts = []
    if missing:
        close = closest_name(missing[0], extra or given)
        hint = f" (closest in the file: '{close}')" if close else ""
        parts.append(f"missing tensors: {len(missing)}, first '{missing[0]}'{hint}")
    if extra:
        close = closest_name(extra[0], missing or expected)
        hint = f" (closest expected name: '{close}')" if close else ""
        parts.append(f"unexpected tensors: {len(extra)}, first '{extra[0]}'{hint}")
    return "; ".join(parts) + f"; expected a {dialect.name} Mask R-CNN or Faster R-CNN"


def _unknown_dialect(path: Path, tensors: Mapping[str, Tensor]) -> str:
    found = ", ".join(f"'{n}'" for n in list(tensors)[:3])
    known = "; ".join(f"{d.name} has '{d.landmark}'" for d in DIALECTS)
    return f"{path}: not a Mask R-CNN that is known here (it has {found}, …; {known})"
