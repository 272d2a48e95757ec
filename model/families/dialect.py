"""What a checkpoint dialect has to say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from model.spec import ModelSpec
from model.spec_options import SpecOptions


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something the weights cannot tell: what was assumed, and the option that says otherwise.

    `field` is its path in `ModelSpec`. Where `must_be_said` there is no sensible guess: opening
    the checkpoint fails unless the user says it.
    """

    what: str
    value: str
    option: str
    field: str
    must_be_said: bool = False

    def __str__(self) -> str:
        return f"{self.what} {self.value} ({self.option})"


@dataclass(frozen=True, slots=True)
class Reading:
    """A spec read off names and shapes, and what had to be assumed for it.

    `notes` are lines for the user: which configuration was read, what in it was not understood.
    `unused` are tensors that said something and are no weights; `added` are such as the file
    leaves out because they are known.
    """

    spec: ModelSpec
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...] = ()
    unused: frozenset[str] = frozenset()
    added: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """What a dialect reads besides tensors: the file's name and hash, and its configuration.

    `meta` is plain data that the file keeps beside the weights, of any shape; `names` are the
    tensors' own, before `Dialect.prepare`. `options` are laid over whatever is read: what they
    say need not be sound in the configuration. `is_config_found` where nobody named it: it lies
    beside the weights.
    """

    path: Path
    sha256: str
    config: Path | None = None
    meta: Mapping[Any, object] = field(default_factory=dict)
    names: Collection[str] = ()
    options: SpecOptions = field(default_factory=SpecOptions)
    is_config_found: bool = False


class Dialect(Protocol):
    """One way of naming and meaning a Mask R-CNN's weights."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def landmark(self) -> str:
        """A tensor name that every checkpoint of the dialect has."""

    @property
    def config_names(self) -> tuple[str, ...]:
        """Names of a configuration beside the weights that is used unasked; none if empty."""

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the names are of this dialect."""

    def prepare(self, tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Tensors as the network takes them, under the dialect's present names.

        Old names become new ones, what inference does not read is left out, and what the dialect
        stores in another layout or in two parts is brought into the network's.
        """

    def read(self, tensors: Mapping[str, Tensor], source: Source) -> Reading:
        """Read the architecture off prepared tensors, and the rest off the configuration."""

    def original(self, name: str, spec: ModelSpec) -> str:
        """The dialect's name for `MaskRCNN`'s tensor `name`."""
