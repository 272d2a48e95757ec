"""Open a checkpoint: its tensors, the spec that they imply, and every assumption in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.errors import CheckpointError, SpecError, UsageError, closest_hint, first_line
from model.families.assumptions import Assumption, assumptions
from model.families.detectron2 import dialect as detectron2_dialect
from model.families.dialect import Dialect, Reading, Source
from model.families.matterport import dialect as matterport_dialect
from model.families.mayaku import dialect as mayaku_dialect
from model.families.mmdetection import dialect as mmdetection_dialect
from model.families.stored_names import stored_names
from model.families.torchvision import dialect as torchvision_dialect
from model.files.stored_spec import stored_spec
from model.files.weights_file import Weights, read_weights
from model.mask_rcnn import MaskRCNN
from model.spec import ModelSpec
from model.spec_options import SpecOptions, apply, read_spec_file

__all__ = ["DIALECTS", "Checkpoint", "SpecOptions", "load", "read_spec_file"]

DIALECTS: tuple[Dialect, ...] = (
    mayaku_dialect.DIALECT,
    torchvision_dialect.DIALECT,
    detectron2_dialect.DIALECT,
    mmdetection_dialect.DIALECT,
    matterport_dialect.DIALECT,
)
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: of the weights file.
        sha256: of the weights file.
        spec: read from the weights and the configuration, with the user's options.
        tensors: by the names of `MaskRCNN`'s state dict.
        original: the same tensors by the dialect's names.
        assumptions: values of the spec that are in neither the file nor the options.
        notes: lines for the user.
        taken: which of the file's tensors were read; empty for all.
    """

    path: Path
    sha256: str
    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    original: Mapping[str, Tensor]
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...] = ()
    taken: str = ""

    def build(self) -> MaskRCNN:
        """The network in eval mode with these weights."""
        model = MaskRCNN(self.spec)
        model.load_state_dict(dict(self.tensors), strict=False)
        return model.eval().requires_grad_(False)


def load(
    path: str | Path, options: SpecOptions | None = None, config: Path | None = None
) -> Checkpoint:
    """Read a checkpoint safely and identify its dialect and architecture.

    Args:
        path: a `.pth`, `.pt`, `.safetensors`, `.pkl` or `.h5` file.
        options: override the checkpoint's spec.
        config: the framework's configuration of the model; None uses a file of the framework's
            usual name in the folder of the weights, if there is one.

    Raises:
        CheckpointError: the file cannot be read, is of an unknown dialect, or lacks tensors.
        UsageError: an option has an impossible value, or does not fit the weights.
        SpecError: `options.overrides` has one.
    """
    path, options = Path(path), options or SpecOptions()
    weights = read_weights(path, DIALECTS)
    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: no such file; expected the framework's configuration")
    stored = stored_spec(weights.header, path)
    dialect = _dialect(path, weights.tensors, stored)
    if config is not None and (stored is not None or not dialect.config_names):
        what = "a converted file with its own spec" if stored else f"a {dialect.name} checkpoint"
        raise UsageError(f"--config {config}: {path} is {what}; expected a detectron2 checkpoint")
    if stored is not None:
        original = {dialect.original(n, stored): t for n, t in weights.tensors.items()}
        reading = Reading(stored, ())
    else:
        source = Source(
            path,
            weights.sha256,
            config or _default_config(path, dialect),
            weights.content,
            tuple(weights.tensors),
            options,
            config_is_implicit=config is None,
        )
        original = dialect.prepare(weights.tensors, path)
        reading = _with_names(_read(dialect, original, source), weights)
    spec = apply(reading.spec, options)
    assumed = assumptions(spec, reading.assumed, options)
    _require_known(assumed, reading.required, path)
    original = {n: t for n, t in original.items() if n not in reading.unused}
    original.update(reading.added)
    expected = {
        dialect.original(name, spec): (name, shape)
        for name, shape in _network_shapes(spec, path).items()
    }
    counters = _counters(original, expected)
    original = {n: t for n, t in original.items() if n not in counters}
    tensors = _matched(path, spec, original, expected, dialect)
    taken = weights.taken(len(counters))
    return Checkpoint(path, weights.sha256, spec, tensors, original, assumed, reading.notes, taken)


def _counters(tensors: Mapping[str, Tensor], expected: Iterable[str]) -> list[str]:
    """Single numbers of modules that the network does not have: `n_averaged`, a metric's total."""
    modules = {name.partition(".")[0] for name in expected}
    return [n for n, t in tensors.items() if n.partition(".")[0] not in modules and t.numel() == 1]


def _dialect(path: Path, tensors: Mapping[str, Tensor], stored: ModelSpec | None) -> Dialect:
    """The dialect of the tensors' names; for a converted file, of its original names."""
    for dialect in DIALECTS:
        if dialect.recognizes(tensors) if stored is None else dialect.name == stored.dialect:
            return dialect
    names = ", ".join(f"'{n}'" for n in list(tensors)[:3])
    known = "; ".join(f"{d.name} has '{d.landmark}'" for d in DIALECTS)
    raise CheckpointError(f"{path}: not a known Mask R-CNN (it has {names}, …); expected: {known}")


def _default_config(path: Path, dialect: Dialect) -> Path | None:
    paths = (path.parent / name for name in dialect.config_names)
    return next((config for config in paths if config.is_file()), None)


def _read(dialect: Dialect, tensors: Mapping[str, Tensor], source: Source) -> Reading:
    try:
        return dialect.read(tensors, source)
    except SpecError as error:
        what = "its shapes" if source.config is None else f"its shapes and {source.config.name}"
        raise CheckpointError(
            f"{source.path}: {what} describe no valid network ({error}); expected weights of a "
            "Mask R-CNN"
        ) from error


def _with_names(reading: Reading, weights: Weights) -> Reading:
    """Use the class names that the file holds beside the tensors, if the dialect has none."""
    if "classes.names" not in reading.assumed:
        return reading
    found = stored_names(weights.content, reading.spec)
    if found is None:
        return reading
    place, classes = found
    return replace(
        reading,
        spec=replace(reading.spec, classes=classes),
        assumed=tuple(field for field in reading.assumed if field != "classes.names"),
        notes=(*reading.notes, f"class names: '{place}' in the file"),
    )


def _require_known(assumed: Iterable[Assumption], required: Iterable[str], path: Path) -> None:
    missing = [a for a in assumed if a.field in set(required)]
    if missing:
        values = ", ".join(f"'{a.field}'" for a in missing)
        raise CheckpointError(
            f"{path}: {values} are not in the weights, and a model of these sizes has no usual "
            f"ones; set them in a file for {missing[0].option}"
        )


def _matched(
    path: Path,
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, tuple[str, tuple[int, ...]]],
    dialect: Dialect,
) -> dict[str, Tensor]:
    """The tensors by the network's names; names and shapes must be those of the network."""
    # FrozenBatchNorm has no such counter, and inference does not use it.
    missing = [n for n in expected if n not in tensors and not n.endswith(_COUNTER)]
    extra = [n for n in tensors if n not in expected]
    if missing or extra:
        raise CheckpointError(f"{path}: {_key_report(missing, extra, tensors, expected, dialect)}")
    for name, tensor in tensors.items():
        shape = expected[name][1]
        where = f"{path}: tensor '{name}'"
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{where} has shape {tuple(tensor.shape)}, expected {shape} for {spec.architecture}"
            )
        if not (tensor.is_floating_point() or name.endswith(_COUNTER)):
            raise CheckpointError(f"{where} has type {tensor.dtype}, expected floating point")
    return {expected[name][0]: tensor for name, tensor in tensors.items()}


def _network_shapes(spec: ModelSpec, path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            return {n: tuple(t.shape) for n, t in MaskRCNN(spec).state_dict().items()}
    except (RuntimeError, ValueError) as error:  # sizes that no layer can have
        raise CheckpointError(
            f"{path}: the network cannot be built ({first_line(error)}); correct the sizes in the "
            "spec"
        ) from error


def _key_report(
    missing: list[str],
    extra: list[str],
    names: Iterable[str],
    expected: Iterable[str],
    dialect: Dialect,
) -> str:
    parts = []
    if missing:
        hint = closest_hint(missing[0], extra or names)
        parts.append(f"missing tensors: {len(missing)}, first '{missing[0]}'{hint}")
    if extra:
        hint = closest_hint(extra[0], missing or expected, "closest expected name")
        parts.append(f"unexpected tensors: {len(extra)}, first '{extra[0]}'{hint}")
    return "; ".join(parts) + f"; expected a {dialect.name} Mask R-CNN or Faster R-CNN"
