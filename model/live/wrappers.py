"""The detector inside other modules: DataParallel, torch.compile, a training's module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from model.errors import ModelError, in_brief
from model.live.copying import is_compiled
from model.live.faces import class_name

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
# What a checkpoint of another library is exported with.
_CONFIGS = {"detectron2": "config.yaml", "mmdet": "config.py"}
_SIDE = 32


def detector_in(model: object) -> tuple[GeneralizedRCNN, str]:
    """The detector in a module, and its path there ("" for the module itself).

    Wrappers whose `forward` only calls the detector are taken off.

    Raises:
        ModelError: no module, no torchvision two-stage detector, several of them, or a `forward`
            around it that does more.
    """
    module = _module(model)
    inside = [(n, m) for n, m in module.named_modules() if isinstance(m, GeneralizedRCNN)]
    if not inside:
        _require_no_other_library(module)
        raise ModelError(
            f"{class_name(module)}: no two-stage detector of torchvision in it; expected a "
            "MaskRCNN, FasterRCNN, KeypointRCNN, or another GeneralizedRCNN"
        )
    if len(inside) > 1:
        names = ", ".join(f"'{name}'" if name else "itself" for name, _ in inside[:4])
        raise ModelError(
            f"{class_name(module)} has {len(inside)} detectors ({names}); pass the one to export"
        )
    name, detector = inside[0]
    own_forward = type(detector).forward is GeneralizedRCNN.forward
    if module is not detector or not own_forward or "forward" in vars(detector):
        _require_pass_through(module, detector, name)
    return detector, name


def _require_no_other_library(module: nn.Module) -> None:
    for part in module.modules():
        for base in type(part).__mro__:
            config = _CONFIGS.get(base.__module__.partition(".")[0])
            if config is not None:
                raise ModelError(
                    f"{class_name(module)}: live models of {base.__module__.partition('.')[0]} "
                    "cannot be read; save the state dict, and export the file with its "
                    f"configuration (python -m export.onnx weights.pth --config {config})"
                )


def _module(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        hint = "a state dict is a checkpoint: save it and pass its path" if _is_state(model) else ""
        raise ModelError(
            f"expected a module (torch.nn.Module), got {class_name(model)}; "
            f"{hint or 'pass the model itself'}"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            f"{class_name(model)}: TorchScript cannot be exported; pass the module that it was "
            "made of"
        )
    if isinstance(model, _PARALLEL):
        return _module(model.module)
    if is_compiled(model):
        return _module(model._orig_mod)
    return model


def _is_state(model: object) -> bool:
    return isinstance(model, dict) and any(isinstance(v, Tensor) for v in model.values())


def _require_pass_through(module: nn.Module, detector: GeneralizedRCNN, name: str) -> None:
    """Require that a `forward` passes images and detections on, unchanged.

    The detector's own `forward` is replaced by one that records its images and returns known
    detections.
    """
    image = torch.linspace(0, 1, 3 * _SIDE * _SIDE).reshape(3, _SIDE, _SIDE)
    calls: list[Any] = []
    remedy = f"pass its part '{name}'" if name else "pass a model with torchvision's forward"
    where = f"{class_name(module)}.forward()"
    eager = torch.compiler.set_stance("force_eager")  # compiled parts inside would be compiled
    with _recorded(module, detector, calls), torch.no_grad(), eager:
        try:
            result = module.forward([image.clone()])
        except Exception as error:  # the user's code may raise anything
            raise ModelError(
                f"{where} fails on a list of one image ({type(error).__name__}: "
                f"{in_brief(error)}); {remedy}"
            ) from error
    is_one_call = len(calls) == 1 and len(calls[0]) == 1 and torch.equal(calls[0][0], image)
    if not is_one_call or not _is_equal(result, _detections()):
        raise ModelError(
            f"{where} does more than to call torchvision's on the images, which cannot be "
            f"exported; {remedy}"
        )


@contextmanager
def _recorded(module: nn.Module, detector: GeneralizedRCNN, calls: list[Any]) -> Iterator[None]:
    """In eval mode, with another `GeneralizedRCNN.forward` for this detector."""
    original = GeneralizedRCNN.forward

    def forward(self: GeneralizedRCNN, images: Any, targets: Any = None) -> Any:
        if self is not detector:
            return original(self, images, targets)
        calls.append([image.clone() for image in images])
        return _detections()

    flags = {part: part.training for part in (module, detector)}
    for part in flags:
        part.training = False
    try:
        with patch.object(GeneralizedRCNN, "forward", forward):
            yield
    finally:
        for part, training in flags.items():
            part.training = training


def _detections() -> list[dict[str, Tensor]]:
    """Three rows of one image, of which any filter would remove some."""
    return [
        {
            "boxes": torch.tensor([[1.0, 2, 20, 24], [1, 3, 21, 24], [5, 5, 6, 7]]),
            "labels": torch.tensor([1, 1, 2]),
            "scores": torch.tensor([0.9, 0.5, 0.01]),
            "masks": torch.linspace(0, 1, 3 * _SIDE * _SIDE).reshape(3, 1, _SIDE, _SIDE),
            "keypoints": torch.ones(3, 17, 3),
            "keypoints_scores": torch.ones(3, 17),
        }
    ]


def _is_equal(result: object, expected: list[dict[str, Tensor]]) -> bool:
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], dict):
        return False
    one = result[0]
    return one.keys() == expected[0].keys() and all(
        isinstance(value, Tensor) and torch.equal(value, expected[0][key])
        for key, value in one.items()
    )
