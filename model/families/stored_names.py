"""Class names that a weights file holds beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.files.wrappings import nested_dicts
from model.spec import ClassSpec, ModelSpec

_KEYS = ("names", "class_names", "classes", "CLASSES", "categories", "thing_classes")
_MAX_NAME = 200


def stored_names(content: Mapping[Any, object], spec: ModelSpec) -> tuple[str, ClassSpec] | None:
    """The first list of as many names as the model has classes, with its place; None for none.

    Names are in the order of the labels, with or without a background in front; a dict has them by
    number. Anything else is ignored: the content is untrusted.
    """
    expected, has_background = len(spec.classes.names), spec.box.background == "first"
    for keys, inside in nested_dicts(content):
        for key in _KEYS:
            value = inside.get(key)
            if not isinstance(value, Mapping | list | tuple) or len(value) > expected:
                continue
            names = _in_order(value)
            if len(names) == expected - 1 and has_background:
                names = ("__background__", *names)
            if len(names) == expected and all(map(_is_name, names)):
                classes = spec.classes if spec.classes.names == names else ClassSpec(names)
                return ".".join((*keys, key)), classes
    return None


def _in_order(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        return tuple(value.get(i, value.get(str(i))) for i in range(len(value)))
    return tuple(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME
