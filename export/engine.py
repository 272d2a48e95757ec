"""`maskport engine`: an exported ONNX file to TensorRT engines, each with its manifest.

python -m export.engine model.rtx.onnx --gpu sm86,sm89
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.builders.options import BuildOptions
from export.targets import TARGETS
from maskport import __version__
from model.errors import ArtifactError, UsageError
from runtime.artifacts.engine_manifest import HARDWARE_LEVELS, EngineInfo, manifest_path, to_text
from runtime.cli.console import DONE, Parser, run, whole_number
from runtime.cli.next_command import next_step
from runtime.files import atomic_path

if TYPE_CHECKING:
    from export.builders.builder import Built
    from export.builders.library import Library
    from export.onnx_file import OnnxFile
    from runtime.artifacts.metadata import Artifact

_ARCHITECTURE = re.compile(r"sm[0-9]{2,3}")


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine that was written."""

    path: Path
    info: EngineInfo
    warnings: tuple[str, ...]


def build_engine(
    model: str | Path,
    folder: str | Path | None = None,
    gpu: Sequence[str] = (),
    options: BuildOptions | None = None,
) -> list[EngineReport]:
    """Compile an ONNX file; the target in its metadata chooses the library.

    Args:
        model: a file of `maskport export --target tensorrt` or `tensorrt-rtx`.
        folder: where `<stem>.<arch>.engine` and its manifest go; default: beside the model.
        gpu: architectures like "sm89"; TensorRT-RTX needs them, TensorRT builds for the local GPU.
        options: of the build.

    Raises:
        UsageError: an architecture or an option that the library does not have.
        ArtifactError: the file is not ours, is damaged, or was exported for another target.
        MissingDependencyError: the library is not installed.
        EngineBuildError: the library refused the graph.
    """
    path, chosen = Path(model), options or BuildOptions()
    for name in gpu:
        if not _ARCHITECTURE.fullmatch(name):
            raise UsageError(f"--gpu: expected architectures like sm86,sm89, got '{name}'")
    from export.onnx_file import read_onnx

    read = read_onnx(path)
    library = _library(path, read.artifact)
    architectures = library.architectures(tuple(gpu))
    target = Path(folder) if folder is not None else path.parent
    if not target.is_dir():
        raise UsageError(f"-o {target}: no such folder; make it first")
    return [_build_one(library, read, a, chosen, target) for a in architectures]


def _library(path: Path, artifact: Artifact) -> Library:
    name = artifact.manifest.target
    if name not in TARGETS or not TARGETS[name].engine:
        height, width = artifact.manifest.height or 800, artifact.manifest.width or 1344
        raise ArtifactError(
            f"{path}: was exported for {name} (lowering '{artifact.manifest.lowering}'), whose "
            "operators TensorRT cannot compile; export it again: python -m export.onnx WEIGHTS "
            f"--target tensorrt-rtx --size {height}x{width}"
        )
    if name == "tensorrt-rtx":
        from export.builders.rtx import RtxLibrary

        return RtxLibrary()
    from export.builders.tensorrt import TensorRTLibrary

    return TensorRTLibrary()


def _build_one(
    library: Library, read: OnnxFile, architecture: str, options: BuildOptions, folder: Path
) -> EngineReport:
    from export.builders.builder import build
    from export.builders.inspection import check_engine_precision, datatypes, inspect_engine
    from export.builders.progress import BuildProgress

    source = read.artifact.path
    output = folder / f"{source.stem}.{architecture}.engine"
    progress = BuildProgress(architecture)
    # Both outputs are claimed before the build: one that cannot be written must not cost one.
    with atomic_path(manifest_path(output)) as manifest_file, atomic_path(output) as engine_file:
        graph = read.model.SerializeToString()
        built = None
        try:
            built = build(library, graph, read.artifact.manifest, architecture, options, progress)
        finally:
            progress.end(built is not None)
        if library.opens_what_it_builds and not options.version_compatible:
            found = datatypes(inspect_engine(library, bytes(memoryview(built.plan))))
            check_engine_precision(read.artifact.manifest.precision, found)
        engine_file.write_bytes(memoryview(built.plan))
        info = _info(library, read, architecture, options, built)
        manifest_file.write_text(to_text(_artifact(read, library, output), info), "utf-8")
    return EngineReport(output, info, built.warnings)


def _artifact(read: OnnxFile, library: Library, output: Path) -> Artifact:
    manifest = read.artifact.manifest
    versions = {**manifest.versions, "maskport": __version__, library.name: library.version}
    return replace(read.artifact, path=output, manifest=replace(manifest, versions=versions))


def _info(
    library: Library, read: OnnxFile, architecture: str, options: BuildOptions, built: Built
) -> EngineInfo:
    plan = memoryview(built.plan)
    asked = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
    }
    return EngineInfo(
        sha256=hashlib.sha256(plan).hexdigest(),
        size_bytes=plan.nbytes,
        library=library.name,
        library_version=library.version,
        architecture=architecture,
        onnx_sha256=read.sha256,
        tensors=built.tensors,
        layer_types=built.layer_types,
        quantize_layers=built.quantize_layers,
        options=asked,
        build_seconds=round(built.seconds, 2),
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; answers the exit status."""
    return run(_engine, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport engine", description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help=".onnx, exported with --target tensorrt[-rtx]")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: beside it")
    parser.add_argument(
        "--gpu", default="", metavar="SM,…", help="TensorRT-RTX: architectures, like sm86,sm89"
    )
    parser.add_argument("--workspace", type=_mebibytes, metavar="MIB", help="scratch memory")
    parser.add_argument("--level", type=int, choices=range(6), help="optimisation level")
    parser.add_argument("--tf32", action="store_true", help="let FP32 layers use TF32")
    full = parser.add_argument_group("TensorRT only")
    full.add_argument("--timing-cache", type=Path, metavar="FILE", help="kept between builds")
    full.add_argument("--version-compatible", action="store_true", help="for later versions too")
    full.add_argument("--hardware-compatible", choices=HARDWARE_LEVELS, default="none")
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
        optimisation_level=args.level,
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
        types = ", ".join(f"{count} layers {kind}" for kind, count in info.layer_types.items())
        print(
            f"{report.path} · {info.size_bytes / 1e6:.0f} MB · {info.library} "
            f"{info.library_version} · {info.architecture} · {types} · {info.build_seconds:.1f} s"
        )
    print(next_step("doctor", reports[0].path))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
