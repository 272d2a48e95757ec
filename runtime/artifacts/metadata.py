"""The metadata of an exported file: its spec, and the manifest of how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import ArtifactError, SpecError, UsageError

if TYPE_CHECKING:
    from model.spec import ModelSpec

SPEC_KEY = "maskport.spec"
MANIFEST_KEY = "maskport.manifest"
MANIFEST_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a file was made.

    `batch`, `height` and `width` are None if the graph accepts any value; sides are canvas pixels.
    `batch_range` is the smallest, usual and largest batch if it is bounded but not fixed.
    """

    target: str
    lowering: str
    precision: str
    weights_sha256: str
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    batch_range: tuple[int, int, int] | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    manifest_version: int = MANIFEST_VERSION

    @property
    def batch_bounds(self) -> tuple[int, int | None]:
        """The smallest and the largest batch of one run; None if there is no bound."""
        if self.batch_range is not None:
            return self.batch_range[0], self.batch_range[2]
        return (1, None) if self.batch is None else (self.batch, self.batch)

    @property
    def canvas_hw(self) -> tuple[int, int] | None:
        """Height and width of a fixed canvas; None if the graph accepts any."""
        if self.height is None or self.width is None:
            return None
        return self.height, self.width

    def require_batch(self, name: str, size: int) -> None:
        """Require that one run can hold a batch.

        Raises:
            UsageError: it is too large; the message begins with `name`.
        """
        largest = self.batch_bounds[1]
        if largest is not None and size > largest:
            raise UsageError(
                f"{name} {size}: the artifact was exported for a batch of at most {largest}; use a "
                f"smaller one, or export it with --batch {size}"
            )


@dataclass(frozen=True, slots=True)
class Artifact:
    """An executable file with its spec and manifest.

    `assumptions` of a checkpoint are the parts of its spec that are in neither the file nor the
    options, a line each; an exported file has none.
    """

    path: Path
    spec: ModelSpec
    manifest: Manifest
    assumptions: tuple[str, ...] = ()


def to_metadata(spec: ModelSpec, manifest: Manifest) -> dict[str, str]:
    """The key-value pairs that are stored in the file."""
    from model.spec_json import to_json

    return {SPEC_KEY: to_json(spec), MANIFEST_KEY: json.dumps(asdict(manifest))}


def from_metadata(path: Path, metadata: Mapping[str, str]) -> Artifact:
    """Read what `to_metadata` wrote.

    Raises:
        ArtifactError: the pairs are missing or damaged.
    """
    from model.spec_json import from_json

    if SPEC_KEY not in metadata or MANIFEST_KEY not in metadata:
        raise ArtifactError(
            f"{path}: no maskport metadata; expected a file written by `maskport export`"
        )
    try:
        manifest = _manifest(json.loads(metadata[MANIFEST_KEY]))
        spec = from_json(metadata[SPEC_KEY])
    except (ValueError, TypeError, RecursionError, SpecError) as error:
        raise ArtifactError(f"{path}: damaged metadata ({error}); export it again") from error
    if manifest.manifest_version != MANIFEST_VERSION:
        raise ArtifactError(
            f"{path}: written by another version of maskport (manifest "
            f"{manifest.manifest_version}, expected {MANIFEST_VERSION}); export it again"
        )
    return Artifact(path, spec, manifest)


def _manifest(data: Mapping[str, Any]) -> Manifest:
    """Rebuild a manifest; `TypeError` if a field is unknown, missing or of another type."""
    if not isinstance(data, dict):
        raise TypeError("manifest: expected an object")
    span = data.get("batch_range")
    manifest = Manifest(**{**data, "batch_range": None if span is None else tuple(span)})
    for name in ("target", "lowering", "precision", "weights_sha256"):
        if not isinstance(getattr(manifest, name), str):
            raise TypeError(f"manifest.{name}: expected a string")
    for name in ("batch", "height", "width"):
        if not _is_size(getattr(manifest, name)):
            raise TypeError(f"manifest.{name}: expected a positive number or null")
    if manifest.batch_range is not None:
        sizes = [n for n in manifest.batch_range if _is_size(n) and n]
        if len(sizes) != 3 or len(manifest.batch_range) != 3 or sizes != sorted(sizes):
            raise TypeError(
                "manifest.batch_range: expected three positive numbers in ascending order"
            )
        if manifest.batch is not None:
            raise TypeError("manifest: expected a batch or a batch_range, not both")
    if not isinstance(manifest.versions, dict):
        raise TypeError("manifest.versions: expected an object")
    return manifest


def _is_size(value: object) -> bool:
    return value is None or (type(value) is int and 1 <= value <= 2**20)
