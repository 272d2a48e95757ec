"""`maskport engine`: build TensorRT engines from an exported ONNX file, each with a manifest.

python -m export.engine model.rtx.onnx --gpu sm86,sm89
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.builders.library import Library, library_of
from export.builders.options import BuildOptions
from export.targets import TARGETS, target_named
from maskport import __version__
from model.errors import ArtifactError, UsageError
from runtime.artifacts.engine_manifest import HARDWARE_LEVELS, EngineInfo, manifest_path, to_text
from runtime.cli.console import DONE, Parser, run, whole_number
from runtime.cli.next_command import next_step
from runtime.files import atomic_path

if TYPE_CHECKING:
    from torch import nn

    from export.builders.builder import Built
    from export.onnx_file import OnnxFile
    from export.tracing import GraphShape
    from runtime.artifacts.metadata import Artifact

_ARCHITECTURE = re.compile(r"sm[0-9]{2,3}")


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine that was written."""

    path: Path
    info: EngineInfo
    warnings: tuple[str, ...]


def build_engine(
    model: str | Path | nn.Module,
    folder: str | Path | None = None,
    gpu: Sequence[str] = (),
    options: BuildOptions | None = None,
    shape: GraphShape | None = None,
    target: str = "tensorrt-rtx",
) -> list[EngineReport]:
    """Compile an ONNX file with the library that its metadata names as the target.

    Args:
        model: a file of `maskport export --target tensorrt` or `tensorrt-rtx`; or a live module,
            which is first exported to `<class>.rtx.onnx` in the folder, and checked.
        folder: for `<stem>.<arch>.engine` and its manifest; default: the model's folder.
        gpu: architectures like "sm89"; required by TensorRT-RTX. TensorRT builds for the local GPU.
        options: of the build.
        shape: canvas and batch of a live module; a model that resizes every photo to one size
            needs none.
        target: of a live module.

    Raises:
        ModelError: a live module that cannot be exported.
        UsageError: an architecture or option that the library does not support.
        ArtifactError: the file is not ours, is damaged, or was exported for another target.
        MissingDependencyError: the library is not installed.
        EngineBuildError: the library rejected the graph.
    """
    options = options or BuildOptions()
    for name in gpu:
        if not _ARCHITECTURE.fullmatch(name):
            raise UsageError(f"--gpu: expected architectures like sm86,sm89, got '{name}'")
    if isinstance(model, str | os.PathLike):
        if shape is not None:
            raise UsageError(f"shape: {model} has its own; leave it out")
        path = Path(model)
    else:
        path = _exported(model, Path(folder or "."), shape, target)
    from export.onnx_file import read_onnx

    onnx_file = read_onnx(path)
    library = _library(path, onnx_file.artifact)
    architectures = library.architectures(tuple(gpu))
    output = Path(folder) if folder is not None else path.parent
    if not output.is_dir():
        raise UsageError(f"-o {output}: no such folder; create it first")
    return [_build_one(library, onnx_file, a, options, output) for a in architectures]


def _exported(model: nn.Module, folder: Path, shape: GraphShape | None, target: str) -> Path:
    """Export a live module for a target that compiles engines."""
    from export.onnx import export_onnx

    destination = target_named(target)
    if not destination.engine:
        raise UsageError(f"target {target}: no engine is built for it; use tensorrt-rtx")
    path = folder / f"{type(model).__name__}{destination.suffix}"
    return export_onnx(model, path, shape=shape, target=target).path


def _library(path: Path, artifact: Artifact) -> Library:
    name = artifact.manifest.target
    if name not in TARGETS or not TARGETS[name].engine:
        height, width = artifact.manifest.canvas_hw or (800, 1344)
        raise ArtifactError(
            f"{path}: exported for {name} (lowering '{artifact.manifest.lowering}'), with "
            "operators that TensorRT cannot compile; export it again: python -m export.onnx "
            f"WEIGHTS --target tensorrt-rtx --size {height}x{width}"
        )
    return library_of(name)


def _build_one(
    library: Library, onnx_file: OnnxFile, architecture: str, options: BuildOptions, folder: Path
) -> EngineReport:
    from export.builders.builder import build
    from export.builders.inspection import check_engine_precision, datatypes, inspect_engine
    from export.builders.progress import BuildProgress

    artifact = onnx_file.artifact
    output = folder / f"{artifact.path.stem}.{architecture}.engine"
    progress = BuildProgress(architecture)
    # Both outputs are opened before the build, so that an unwritable one fails at once.
    with atomic_path(manifest_path(output)) as manifest_file, atomic_path(output) as engine_file:
        graph = onnx_file.model.SerializeToString()
        built = None
        try:
            built = build(library, graph, artifact.manifest, architecture, options, progress)
        finally:
            progress.end(built is not None)
        if library.opens_what_it_builds and not options.version_compatible:
            inspected = inspect_engine(library, bytes(memoryview(built.plan)))
            check_engine_precision(artifact.manifest.precision, datatypes(inspected))
        engine_file.write_bytes(memoryview(built.plan))
        info = _info(library, onnx_file, architecture, options, built)
        manifest_file.write_text(to_text(_artifact(artifact, library, output), info), "utf-8")
    return EngineReport(output, info, built.warnings)


def _artifact(artifact: Artifact, library: Library, output: Path) -> Artifact:
    manifest = artifact.manifest
    versions = {**manifest.versions, "maskport": __version__, library.name: library.version}
    return replace(artifact, path=output, manifest=replace(manifest, versions=versions))


def _info(
    library: Library, onnx_file: OnnxFile, architecture: str, options: BuildOptions, built: Built
) -> EngineInfo:
    plan = memoryview(built.plan)
    used_options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }
    return EngineInfo(
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=plan.nbytes,
        library=library.name,
        library_version=library.version,
        architecture=architecture,
        onnx_sha256=onnx_file.sha256,
        tensors=built.tensors,
        layer_types=built.layer_types,
        quantize_layers=built.quantize_layers,
        options=used_options,
        build_seconds=round(built.seconds, 2),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_engine, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport engine", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help=".onnx, exported with --target tensorrt[-rtx]")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: the folder of MODEL"
    )
    parser.add_argument(
        "--gpu", default="", metavar="SM,…", help="architectures, like sm86,sm89 (TensorRT-RTX)"
    )
    parser.add_argument("--workspace", type=_mebibytes, metavar="MIB", help="scratch memory limit")
    parser.add_argument("--level", type=int, choices=range(6), help="optimization level")
    parser.add_argument("--tf32", action="store_true", help="allow TF32 in FP32 layers")
    full = parser.add_argument_group("TensorRT only")
    full.add_argument("--timing-cache", type=Path, metavar="FILE", help="kernel timings to reuse")
    full.add_argument(
        "--version-compatible", action="store_true", help="run with later versions, too"
    )
    full.add_argument(
        "--hardware-compatible",
        choices=HARDWARE_LEVELS,
        default="none",
        help="run on other GPUs, too; default: none",
    )
    return parser


def _mebibytes(text: str) -> int:
    """An argparse type: up to a tebibyte."""
    number = whole_number(text)
    if number > 2**20:
        raise argparse.ArgumentTypeError(f"expected at most {2**20} MiB, got {text}")
    return number


def _engine(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    options = BuildOptions(
        workspace_bytes=None if args.workspace is None else args.workspace * 2**20,
        optimization_level=args.level,
        timing_cache=args.timing_cache,
        version_compatible=args.version_compatible,
        hardware_compatible=args.hardware_compatible,
        tf32=args.tf32,
    )
    names = [name for name in args.gpu.split(",") if name]
    reports = build_engine(args.model, args.output, names, options)
    for text in dict.fromkeys(w for report in reports for w in report.warnings):
        print(f"warning: {text[:300]}", file=sys.stderr)
    for report in reports:
        info = report.info
        types = ", ".join(f"{count} layers {dtype}" for dtype, count in info.layer_types.items())
        print(
            f"{report.path} · {info.size_bytes / 1e6:.0f} MB · {info.library} "
            f"{info.library_version} · {info.architecture} · {types} · {info.build_seconds:.1f} s"
        )
    print(next_step("doctor", reports[0].path))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
