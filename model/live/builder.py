"""The user's code that builds the module, and its weights."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from model.errors import ModelError, UsageError, closest_hint, in_brief
from model.files.weights_file import read_weights
from model.files.wrappings import plain_name
from model.live.read import LiveModel, read_live
from model.spec_options import SpecOptions

_OWN_PACKAGES = ("model", "runtime", "export", "calib")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Builder:
    """A callable of the user, like "package.module:build" or "build.py:make", and its arguments.

    Running it runs the user's code.
    """

    reference: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, reference: str, arguments: str | None) -> Builder:
        """Read the two options `--model` and `--model-args`.

        Raises:
            UsageError: no module and name, or arguments that are no JSON object.
        """
        module, _, name = reference.rpartition(":")
        if not module or not name.isidentifier():
            raise UsageError(
                f"--model {reference}: expected package.module:name or file.py:name, like "
                "torchvision.models.detection:maskrcnn_resnet50_fpn"
            )
        try:
            values = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"--model-args: not valid JSON ({error}); expected an object like "
                '{"num_classes": 3}'
            ) from error
        if not isinstance(values, dict):
            raise UsageError(
                f'--model-args: expected a JSON object like {{"num_classes": 3}}, got {arguments}'
            )
        return cls(reference, values)

    def build(self) -> nn.Module:
        """Import the code and call it.

        Raises:
            ModelError: it cannot be imported, raises, or returns no module.
        """
        function = self._function()
        try:
            with _importing(self._folder()):
                built = function(**self._arguments(function))
        except (Exception, SystemExit) as error:  # the user's code may raise anything, or exit
            raise ModelError(
                f"--model {self.reference}: {type(error).__name__}: {in_brief(error)}; correct the "
                "code, or its --model-args"
            ) from error
        if not isinstance(built, nn.Module):
            raise ModelError(
                f"--model {self.reference} returns {type(built).__name__}; expected a "
                "torch.nn.Module"
            )
        return built

    def load(
        self,
        weights: Path | None,
        options: SpecOptions | None = None,
        canvas_hw: tuple[int, int] | None = None,
    ) -> LiveModel:
        """Build the module, load the weights strictly, and read it.

        Args:
            weights: a file that `model.checkpoint.load` reads; None: the module has its weights.
            options: see `read_live`.
            canvas_hw: see `read_live`.

        Raises:
            ModelError: see `build` and `read_live`; weights that do not fit.
            CheckpointError: the weights cannot be read.
        """
        module = self.build()
        if weights is None:
            return read_live(module, options, canvas_hw)
        file = read_weights(weights, [_Names(tuple(map(plain_name, module.state_dict())))])
        load_strictly(module, file.tensors, weights)
        live = read_live(module, options, canvas_hw, (weights, file.sha256))
        return replace(live, taken=file.taken())

    def _function(self) -> Callable[..., object]:
        module, _, name = self.reference.rpartition(":")
        try:
            with _importing(self._folder()):
                imported = _import(module)
        except ModelError:
            raise
        except (Exception, SystemExit) as error:  # the user's code may raise anything, or exit
            raise ModelError(
                f"--model {self.reference}: importing '{module}' fails "
                f"({type(error).__name__}: {in_brief(error)}); correct the name or the code"
            ) from error
        function = getattr(imported, name, None)
        if not callable(function):
            hint = closest_hint(
                name, [n for n in vars(imported) if not n.startswith("_")], "closest name"
            )
            raise ModelError(
                f"--model {self.reference}: '{module}' has no function '{name}'{hint}; expected a "
                "callable that returns the model"
            )
        return function  # type: ignore[no-any-return]

    def _folder(self) -> Path:
        module = self.reference.rpartition(":")[0]
        return Path(module).resolve().parent if module.endswith(".py") else Path.cwd()

    def _arguments(self, function: Callable[..., object]) -> dict[str, Any]:
        arguments = dict(self.arguments)
        if (getattr(function, "__module__", "") or "").startswith("torchvision."):
            # torchvision's builders download the weights of their body by default.
            for name in ("weights", "weights_backbone"):
                if name in inspect.signature(function).parameters:
                    arguments.setdefault(name, None)
        return arguments


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of a module's tensors, to find them in a file; implements `Recognizer`."""

    names: tuple[str, ...]

    @property
    def landmark(self) -> str:
        """The module's first tensor."""
        return next((n for n in self.names if not n.endswith(_COUNTER)), "")

    def recognizes(self, names: Collection[str]) -> bool:
        """Whether most of the names occur; those that are missing are named later."""
        return 2 * len(set(self.names) & set(names)) > len(self.names)


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module; every name and shape must fit.

    Args:
        module: of the user.
        tensors: by the module's names, without wrappers such as "module.".
        path: of their file, for messages.

    Raises:
        ModelError: missing or unexpected names, or other shapes.
    """
    expected = list(module.state_dict())
    by_plain = {plain_name(name): name for name in expected}
    try:
        result = module.load_state_dict(
            {by_plain.get(name, name): tensor for name, tensor in tensors.items()}, strict=False
        )
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{path}: the weights do not fit the model ({in_brief(error, 300)}); pass the "
            "arguments of the training in --model-args"
        ) from error
    # FrozenBatchNorm has no such counter, and inference does not use it.
    missing = [n for n in result.missing_keys if not n.endswith(_COUNTER)]
    unexpected = [n for n in result.unexpected_keys if not n.endswith(_COUNTER)]
    if missing or unexpected:
        rows = [
            f"{len(names)} {what}, first '{names[0]}'"
            for what, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise ModelError(
            f"{path}: the tensors do not fit the model: {'; '.join(rows)}; pass the arguments of "
            "the training in --model-args"
        )


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    """With the folder first on the path of imports."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _import(name: str) -> ModuleType:
    """A module by its dotted name, or a file."""
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ModelError(f"--model {name}: no such file; expected the code of the model")
        spec = importlib.util.spec_from_file_location(f"maskport_user_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # as an import does: dataclasses and pickle look it up
        spec.loader.exec_module(module)
        return module
    if name.split(".")[0] in _OWN_PACKAGES:
        raise ModelError(
            f"--model {name}: '{name.split('.')[0]}' is a package of maskport; pass the file "
            f"instead, like {name.replace('.', '/')}.py:name"
        )
    return importlib.import_module(name)
