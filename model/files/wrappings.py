"""A network's tensors in a weights file, whatever dicts and modules wrap them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

from model.files.torch_placeholders import StoredArray

# Modules that only wrap another one; their names may occur anywhere in a tensor's name.
_WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|avg|averaged?)(?![a-z])", re.IGNORECASE)
_DEPTH = 2  # of dicts in dicts
_MOST_PREFIXES = 16
_MAX_NAME = 300


class Recognizer(Protocol):
    """What identifies a network; see `model.families.dialect.Dialect`."""

    @property
    def landmark(self) -> str:
        """A tensor name that every such network has."""

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether the names are of such a network."""


@dataclass(frozen=True, slots=True)
class Location:
    """A network in a file.

    Attributes:
        keys: of the nested dicts, outermost first.
        prefix: module names in front of every tensor's name.
        content: the innermost dict; it may also hold other tensors and plain data.
    """

    keys: tuple[str, ...]
    prefix: tuple[str, ...]
    content: Mapping[Any, Any]

    @property
    def is_averaged(self) -> bool:
        """Whether a name on the way suggests averaged weights (EMA, SWA)."""
        return any(_AVERAGED.search(part) for part in (*self.keys, *self.prefix))

    @property
    def is_plain(self) -> bool:
        """Whether nothing wraps the tensors."""
        return not self.keys and not self.prefix

    def tensors(self) -> Iterator[tuple[Any, Any]]:
        """The network's own name of each tensor, without prefix and wrappers, and the dict's.

        At the root all tensors belong to the network, so that unexpected ones are reported.
        """
        for name, value in self.content.items():
            if isinstance(value, Tensor | StoredArray):
                own = _inside(name, self.prefix)
                if own is not None:
                    yield own, name

    def __str__(self) -> str:
        keys = "".join(f"[{ascii(key)[:60]}]" for key in self.keys)
        prefix = ascii(".".join((*self.prefix, "*")))[:120] if self.prefix else ""
        return " ".join(part for part in (keys, prefix) if part) or "the whole file"


def locate(loaded: Mapping[Any, Any], known: Sequence[Recognizer]) -> list[Location]:
    """The networks in a file, the one to use first: averaged weights only if there are no others.

    If no landmark is found, the dict with the most tensors.
    """
    found = [
        Location(keys, prefix, content)
        for keys, content in nested_dicts(loaded)
        for prefix in _prefixes(content, known)
    ]
    if found:
        return sorted(found, key=lambda location: location.is_averaged)
    plain = [Location(keys, (), content) for keys, content in nested_dicts(loaded)]
    return [max(plain, key=lambda location: sum(1 for _ in location.tensors()))]


def nested_dicts(
    loaded: Mapping[Any, Any],
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """The file's dict and those inside it under names, outermost first, each once."""
    level: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), loaded)]
    seen = {id(loaded)}
    for _ in range(_DEPTH + 1):
        yield from level
        inner = []
        for keys, content in level:
            for key, value in content.items():
                if not (isinstance(key, str) and len(key) <= _MAX_NAME):
                    continue  # a number of thousands of digits could not even be printed
                if isinstance(value, Mapping) and id(value) not in seen:
                    seen.add(id(value))
                    inner.append(((*keys, key), value))
        level = inner


def _prefixes(content: Mapping[Any, Any], known: Sequence[Recognizer]) -> list[tuple[str, ...]]:
    """The prefixes under which a dict has a network."""
    found = (
        prefix
        for name, value in content.items()
        if isinstance(value, Tensor | StoredArray) and isinstance(name, str)
        for recognizer in known
        if (prefix := _prefix(name, recognizer.landmark)) is not None
    )
    # Each prefix costs a pass over all names.
    return [
        prefix
        for prefix in islice(dict.fromkeys(found), _MOST_PREFIXES)
        for pairs in [Location((), prefix, content).tensors()]
        for names in [{own for own, _ in pairs if isinstance(own, str)}]
        if any(recognizer.recognizes(names) for recognizer in known)
    ]


def _prefix(name: str, landmark: str) -> tuple[str, ...] | None:
    """The modules in front of `landmark` at the end of a name; None if it is not there."""
    if len(name) > _MAX_NAME or not name.endswith(landmark.rpartition(".")[2]):
        return None
    parts = name.split(".")
    for wanted in reversed(landmark.split(".")):
        while parts and parts[-1] in _WRAPPERS:
            parts.pop()
        if not parts or parts.pop() != wanted:
            return None
    return tuple(parts)


def plain_name(name: str) -> str:
    """A tensor's name without the modules that only wrap another one."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _inside(name: Any, prefix: tuple[str, ...]) -> Any:
    """A tensor's own name; None if it is not under the prefix."""
    if not isinstance(name, str):
        return None if prefix else name
    parts = name.split(".")
    if tuple(parts[: len(prefix)]) != prefix:
        return None
    return plain_name(".".join(parts[len(prefix) :])) or None
