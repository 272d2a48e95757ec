"""The interface of a checkpoint dialect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from model.spec import ModelSpec
from model.spec_options import SpecOptions


@dataclass(frozen=True, slots=True)
class Reading:
    """A spec read from names and shapes, and what it assumes.

    Attributes:
        spec: of the checkpoint.
        assumed: paths of the fields of the spec that are not in the checkpoint.
        notes: lines for the user: the configuration that was read, its unknown keys.
        unused: tensors that are not weights of the network.
        added: tensors with known values that the file omits.
        required: assumed fields without a default: opening the checkpoint fails unless the user
            sets them.
    """

    spec: ModelSpec
    assumed: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unused: frozenset[str] = frozenset()
    added: Mapping[str, Tensor] = field(default_factory=dict)
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What a dialect reads besides tensors.

    Attributes:
        path: of the weights file.
        sha256: of the weights file.
        config: the framework's configuration.
        content: all of the file; untrusted plain data beside the tensors.
        names: of the tensors, before `Dialect.prepare`.
        options: of the user; what they override need not be valid in the configuration.
        config_is_implicit: the configuration is not from the user, but is in the same folder.
    """

    path: Path
    sha256: str
    config: Path | None = None
    content: Mapping[Any, object] = field(default_factory=dict)
    names: Collection[str] = ()
    options: SpecOptions = field(default_factory=SpecOptions)
    config_is_implicit: bool = False


class Dialect(Protocol):
    """A framework's names and conventions for the weights of a Mask R-CNN."""

    @property
    def name(self) -> str:
        """The framework's name."""

    @property
    def landmark(self) -> str:
        """A tensor name that every checkpoint of the dialect has."""

    @property
    def config_names(self) -> tuple[str, ...]:
        """File names of a configuration in the folder of the weights that is used by default."""

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the names are of this dialect."""

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Tensors in the network's layout, under the dialect's current names.

        Old names are replaced, tensors that inference does not use are removed, and tensors in
        another layout or in two parts are converted.
        """

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read the architecture from prepared tensors, the other values from the configuration."""

    def original(self, name: str, spec: ModelSpec) -> str:
        """The dialect's name for `MaskRCNN`'s tensor `name`."""
