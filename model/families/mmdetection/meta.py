"""The metadata beside MMDetection's weights: class names and the training's configuration."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from model.families.mmdetection.config import Config, parse_config

_Three = tuple[float, float, float]
_LONGEST = 1_000_000
_STYLE = re.compile(r"""\bstyle['"]?\s*[=:]\s*['"](pytorch|caffe)['"]""")
_TO_RGB = re.compile(r"""\b(?:to_rgb|bgr_to_rgb)['"]?\s*[=:]\s*(True|False)\b""")
_NUMBERS = r"""['"]?\s*[=:]\s*([\[(][-+.\d\s,e]{1,200}[\])])"""
_MEAN, _STD = re.compile(rf"\bmean{_NUMBERS}"), re.compile(rf"\bstd{_NUMBERS}")


@dataclass(frozen=True, slots=True)
class Training:
    """Values from a training's metadata; None if missing or ambiguous.

    Attributes:
        version: of MMDetection.
        class_names: of the foreground classes.
        stride_in_1x1: the style "caffe".
        channel_order: of the network's input.
        mean: in `channel_order`, for values up to 255.
        std: likewise.
        config: all assignments of the configuration.
    """

    version: str | None = None
    class_names: tuple[str, ...] | None = None
    stride_in_1x1: bool | None = None
    channel_order: Literal["rgb", "bgr"] | None = None
    mean: _Three | None = None
    std: _Three | None = None
    config: Config = field(default_factory=Config)


def read_training(meta: Mapping[object, object]) -> Training:
    """Read `meta` of version 2 (`CLASSES`, `config`) or 3 (`dataset_meta`, `cfg`).

    The configuration is Python source; it is never executed.
    """
    text = next((t for k in ("config", "cfg") if isinstance(t := meta.get(k), str)), "")
    config = parse_config(text)
    text = text if len(text) <= _LONGEST else ""
    style, to_rgb = _unique(_STYLE, text), _unique(_TO_RGB, text)
    version = meta.get("mmdet_version")
    return Training(
        version=version[:40] if isinstance(version, str) else None,
        class_names=_class_names(meta),
        stride_in_1x1=None if style is None else style == "caffe",
        channel_order=None if to_rgb is None else "rgb" if to_rgb == "True" else "bgr",
        mean=_three(_unique(_MEAN, text)),
        std=_three(_unique(_STD, text)),
        config=config,
    )


def with_stored(training: Training, tensors: Mapping[str, Tensor], prefix: str) -> Training:
    """Prefer the mean and std that the file stores as tensors, which the network uses."""
    mean, std = (_stored(tensors.get(f"{prefix}{leaf}")) for leaf in ("mean", "std"))
    return replace(training, mean=mean or training.mean, std=std or training.std)


def _stored(tensor: Tensor | None) -> _Three | None:
    if tensor is None or tensor.numel() != 3:
        return None
    # Seven digits, as in the configuration: 103.53 is 103.5299988 in float32.
    first, second, third = (float(f"{v:.7g}") for v in tensor.flatten().tolist())
    return first, second, third


def _unique(pattern: re.Pattern[str], text: str) -> str | None:
    """The match of the pattern, if all its matches are equal."""
    matches = set(pattern.findall(text))
    return matches.pop() if len(matches) == 1 else None


def _three(text: str | None) -> _Three | None:
    try:
        values = [float(v) for v in ast.literal_eval(text or "[]")]
    except (ValueError, SyntaxError, TypeError, OverflowError):
        return None
    is_valid = len(values) == 3 and all(map(math.isfinite, values))
    return (values[0], values[1], values[2]) if is_valid else None


def _class_names(meta: Mapping[object, object]) -> tuple[str, ...] | None:
    data = meta.get("dataset_meta")
    names = meta.get("CLASSES")
    if isinstance(data, Mapping):
        names = next((data[k] for k in ("classes", "CLASSES") if k in data), names)
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        return None
    return tuple(str(name) for name in names)
