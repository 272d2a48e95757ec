"""The Python API and the `maskport` command.

    import maskport

    maskport.export_onnx("weights.pth", "model.onnx")

Each name of the API is imported on first use, so `import maskport` loads no library. The command
is a verb, then the arguments of the module that implements it. The names of this project's packages
are common words, so this module also checks that Python imports the right ones.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calib.quantize import quantize as quantize
    from export.engine import build_engine as build_engine
    from export.onnx import export_onnx as export_onnx
    from model.checkpoint import load as load_checkpoint
    from runtime.detections import Detections as Detections
    from runtime.evaluate import evaluate as evaluate
    from runtime.predictor import Predictor as Predictor

__version__ = "0.1.0"
__all__ = [
    "Detections",
    "Predictor",
    "build_engine",
    "evaluate",
    "export_onnx",
    "load_checkpoint",
    "quantize",
]

_API: dict[str, tuple[str, str]] = {
    "Detections": ("runtime.detections", "Detections"),
    "Predictor": ("runtime.predictor", "Predictor"),
    "build_engine": ("export.engine", "build_engine"),
    "evaluate": ("runtime.evaluate", "evaluate"),
    "export_onnx": ("export.onnx", "export_onnx"),
    "load_checkpoint": ("model.checkpoint", "load"),
    "quantize": ("calib.quantize", "quantize"),
}

COMMANDS: dict[str, tuple[str, str]] = {
    "export": ("export.onnx", "a checkpoint to an ONNX file, checked against the eager model"),
    "engine": ("export.engine", "an exported file to TensorRT engines, also without a GPU"),
    "inspect": ("export.inspect", "what a checkpoint, an exported file or an engine is"),
    "convert": ("export.convert", "a checkpoint to a .safetensors that contains its spec"),
    "doctor": ("export.doctor", "what works on this machine, and why a file cannot be used"),
    "quantize": ("calib.quantize", "an exported file to INT8, calibrated on photos"),
    "predict": ("runtime.predict", "run an artifact on photos: overlays and results"),
    "evaluate": ("runtime.evaluate", "COCO AP of an artifact on annotated photos"),
    "benchmark": ("runtime.benchmark", "artifacts side by side: times, memory, results"),
}
_PACKAGES = ("model", "runtime", "export", "calib")
_HOME = Path(__file__).resolve().parent


def __getattr__(name: str) -> Any:
    """Import a name of the API on first use."""
    if name not in _API:
        raise AttributeError(f"module 'maskport' has no attribute '{name}'")
    module, attribute = _API[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def shadowed() -> str | None:
    """An error message if another module shadows one of this project's packages, else None."""
    for name in _PACKAGES:
        origin = getattr(importlib.util.find_spec(name), "origin", None)
        if origin is None or Path(origin).resolve() != _HOME / name / "__init__.py":
            return (
                f"error: '{name}' resolves to {origin or 'a folder without __init__.py'}, which "
                f"hides maskport's '{name}'; run the command `maskport` instead of "
                "`python -m …`, or start from another folder"
            )
    return None


def refuse_shadows() -> None:
    """Exit with one line if the working directory shadows one of this project's packages.

    Raises:
        SystemExit: status 1, when Python was started with `-m`.
        ImportError: otherwise.
    """
    message = shadowed()
    if message is None:
        return
    # Python replaces `-m` by the module's path once it has located the module.
    program = sys.argv[0] if sys.argv else ""
    if program == "-m" or Path(program).resolve().parent.parent == _HOME:
        print(message, file=sys.stderr)
        raise SystemExit(1)
    raise ImportError(message)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = [f"  {verb:<{width}}  {what}" for verb, (_, what) in COMMANDS.items()]
    return "\n".join(
        ["usage: maskport COMMAND ...", "", *rows, "", "Run `maskport COMMAND --help` for options."]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(_usage())
        return 0 if args else 2
    if args[0] == "--version":
        print(f"maskport {__version__}")
        return 0
    if args[0] not in COMMANDS:
        print(f"error: no command '{args[0]}'\n\n{_usage()}", file=sys.stderr)
        return 2
    if shadowed() is not None:
        # The working directory comes first on the path under `python -m maskport`.
        sys.path.insert(0, str(_HOME))
    module = importlib.import_module(COMMANDS[args[0]][0])
    status: int = module.main(args[1:])
    return status


if __name__ == "__main__":
    sys.exit(main())
