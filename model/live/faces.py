"""Classes and methods that must be torchvision's, and what a kept part must return."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from model.errors import ModelError, in_brief

_Part = TypeVar("_Part")


def class_name(part: object) -> str:
    """Module and name of a part's class, like "torchvision.ops.poolers.MultiScaleRoIAlign"."""
    return f"{type(part).__module__}.{type(part).__qualname__}"


def require_own(
    part: object, base: type[_Part], where: str, remedy: str, unused: Collection[str] = ()
) -> _Part:
    """Require a part whose class is torchvision's, or inherits every method that inference uses.

    Args:
        part: of the model.
        base: torchvision's class.
        where: the part's path in the model.
        remedy: what to do instead.
        unused: methods of `base` that inference does not use.

    Raises:
        ModelError: another class, or a replaced method.
    """
    if not isinstance(part, base):
        raise ModelError(
            f"{where}: {class_name(part)} cannot be exported; expected {base.__name__}; {remedy}"
        )
    changed = replaced_methods(part, base, unused)
    if changed:
        raise ModelError(
            f"{where}: {class_name(part)} replaces {changed[0]}() of {base.__name__}, which cannot "
            f"be exported; {remedy}"
        )
    return part


def replaced_methods(part: object, base: type, unused: Collection[str] = ()) -> list[str]:
    """The methods of `base` that the part's class or instance replaces, but for `unused` ones."""
    names = [
        name
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("__")
    ]
    return [
        name
        for name in dict.fromkeys(("forward", *names))
        if name not in unused
        and (getattr(type(part), name, None) is not getattr(base, name, None) or name in vars(part))
    ]


def is_plain(part: object, base: type[nn.Module]) -> bool:
    """Whether a part computes what torchvision's class does."""
    return isinstance(part, base) and not replaced_methods(part, base)


def run_part(where: str, module: nn.Module, *inputs: Any) -> Any:
    """Run one part of the model.

    Raises:
        ModelError: it fails; the message has the part's own.
    """
    try:
        return module(*inputs)
    except Exception as error:  # the user's code may raise anything
        shapes = ", ".join(_shown(value) for value in inputs)
        raise ModelError(
            f"{where}: {class_name(module)} fails on {shapes} ({type(error).__name__}: "
            f"{in_brief(error)}); expected a part that works in the eager model"
        ) from error


def feature_maps(output: object, where: str, module: nn.Module) -> dict[str, Tensor]:
    """The maps that a body returns, by name, as torchvision takes them.

    Raises:
        ModelError: neither a map nor a dictionary of maps, or maps of different channels.
    """
    maps = {"0": output} if isinstance(output, Tensor) else output
    if (
        not isinstance(maps, Mapping)
        or not maps
        or not all(isinstance(m, Tensor) and m.dim() == 4 for m in maps.values())
    ):
        raise ModelError(
            f"{where}: {class_name(module)} returns {_shown(output)}; expected a map [N, C, H, W] "
            "or a dictionary of maps, finest first"
        )
    return {str(name): value for name, value in maps.items()}


def require_box_outputs(output: object, rows: int, where: str, module: nn.Module) -> int:
    """Check what a box predictor returns; gives the number of classes with the background.

    Raises:
        ModelError: not (scores [R, C], deltas [R, 4 C]).
    """
    match output:
        case (Tensor() as scores, Tensor() as deltas) if (
            scores.dim() == 2
            and scores.shape[0] == rows
            and scores.shape[1] >= 2
            and tuple(deltas.shape) == (rows, 4 * scores.shape[1])
        ):
            return int(scores.shape[1])
    raise ModelError(
        f"{where}: {class_name(module)} returns {_shown(output)} for {rows} boxes; expected "
        "(scores [R, C], deltas [R, 4 C]) with C classes, the background first"
    )


def require_maps(
    output: object, rows: int, channels: int | None, where: str, module: nn.Module
) -> tuple[int, int]:
    """Check what a mask or keypoint predictor returns; gives channels and side of its maps.

    Raises:
        ModelError: not square maps [R, channels, S, S].
    """
    if isinstance(output, Tensor) and output.dim() == 4:
        count, depth, height, width = output.shape
        if count == rows and height == width and channels in (None, depth):
            return int(depth), int(height)
    expected = "C" if channels is None else str(channels)
    raise ModelError(
        f"{where}: {class_name(module)} returns {_shown(output)} for {rows} boxes; expected square "
        f"logits [{rows}, {expected}, S, S]"
    )


def _shown(value: object) -> str:
    """Shapes of tensors in a value, like "(tensor [2, 3], tensor [2, 12])"."""
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)}"
    if isinstance(value, Mapping):
        entries = [f"{name}: {_shown(each)}" for name, each in list(value.items())[:4]]
        return "{" + ", ".join(entries) + "}"
    if isinstance(value, list | tuple):
        inside = ", ".join(_shown(each) for each in value[:4])
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    return type(value).__name__
