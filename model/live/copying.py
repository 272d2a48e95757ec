"""A float32 copy on the CPU in eval mode; the user's object stays as it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from model.errors import ModelError, UsageError, in_brief
from model.live.faces import class_name

_Module = TypeVar("_Module", bound=nn.Module)
_QUANTIZED = ("torch.ao.", "torch.nn.quantized", "torch.nn.intrinsic", "torch.nn.qat", "torchao.")
# Hooks of these packages compute a layer's weight (weight_norm, spectral_norm, pruning).
_WEIGHT_HOOKS = "torch.nn.utils."
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_HOOK_FLAGS = (
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
)


def float32_copy(module: _Module) -> _Module:
    """A copy with float32 tensors on the CPU, in eval mode, without gradients.

    Parts that were compiled by `torch.compile` are replaced by what they were compiled from.

    Raises:
        ModelError: quantized parts, or an object that cannot be copied.
    """
    _require_floats(module)
    memo: dict[int, Any] = {}
    for tensor in _tensors(module):
        memo.setdefault(id(tensor), _plain(tensor))
    try:
        # The innermost first, so that what contains them finds their copies.
        for part in reversed([m for m in module.modules() if is_compiled(m)]):
            memo[id(part)] = copy.deepcopy(part._orig_mod, memo)
        copied = copy.deepcopy(module, memo)
    except Exception as error:  # attributes of the user may raise anything
        raise ModelError(
            f"the model cannot be copied ({type(error).__name__}: {in_brief(error)}); remove the "
            "attribute that copy.deepcopy fails on"
        ) from error
    return copied.eval().requires_grad_(False)


def set_norm_eps(module: nn.Module, eps: float) -> None:
    """Set the epsilon of every BatchNorm, as torchvision does for its published weights.

    Raises:
        UsageError: a negative or infinite epsilon.
    """
    if not 0 <= eps < math.inf:
        raise UsageError(f"--norm-eps: expected 0 or more, got {eps}")
    part: Any
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d):
            part.eps = eps


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is the wrapper of `torch.compile`."""
    return type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod")


def without_hooks(module: _Module) -> _Module:
    """Remove the hooks of a copy, but for those that compute weights, in place."""
    for part in module.modules():
        for name in _HOOKS:
            hooks: dict[int, Any] = getattr(part, name, None) or {}
            for key in [k for k, hook in hooks.items() if not _computes_weights(hook)]:
                hooks.pop(key)
                for flags in _HOOK_FLAGS:
                    getattr(part, flags, {}).pop(key, None)
    return module


def hooked_parts(module: nn.Module) -> list[str]:
    """Names of the parts with hooks that see or change what they compute."""
    return [
        name or "the model"
        for name, part in module.named_modules()
        for kind in _HOOKS[:2]
        if any(not _computes_weights(hook) for hook in getattr(part, kind).values())
    ]


def _computes_weights(hook: object) -> bool:
    owner = getattr(hook, "__self__", hook)
    return type(owner).__module__.startswith(_WEIGHT_HOOKS)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors in attributes and their lists."""
    for part in module.modules():
        for values in (part._parameters, part._buffers, vars(part)):
            for value in values.values():
                inside = value if isinstance(value, list | tuple) else (value,)
                yield from (each for each in inside if isinstance(each, Tensor))


def _plain(tensor: Tensor) -> Tensor:
    data = tensor.detach().to("cpu", copy=True)
    data = data.float() if data.is_floating_point() else data
    return nn.Parameter(data, requires_grad=False) if isinstance(tensor, nn.Parameter) else data


def _require_floats(module: nn.Module) -> None:
    for name, part in module.named_modules():
        tensors = [*part._parameters.values(), *part._buffers.values()]
        special = [t for t in tensors if t is not None and _is_quantized(t)]
        if class_name(part).startswith(_QUANTIZED) or special:
            raise ModelError(
                f"{name or 'the model'}: {class_name(part)} is quantized by PyTorch; pass the "
                "model in floating point, and quantize the exported file with maskport quantize"
            )
        meta = [t for t in tensors if t is not None and t.is_meta]
        if meta:
            raise ModelError(
                f"{name or 'the model'}: {class_name(part)} has tensors on the meta device, "
                "without values; load the weights first"
            )


def _is_quantized(tensor: Tensor) -> bool:
    return tensor.is_quantized or type(tensor).__module__.startswith("torchao.")


def tensors_sha256(module: nn.Module) -> str:
    """SHA-256 of names, shapes and values of a module's tensors."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
