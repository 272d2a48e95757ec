"""`maskport inspect`: describe a checkpoint, an exported file or an engine.

python -m export.inspect weights.pth
python -m export.inspect model.onnx --json
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from export.cli_spec_options import (
    add_spec_arguments,
    model_arguments,
    model_builder,
    print_reading,
)
from model.errors import ArtifactError
from model.spec import ModelSpec
from model.spec_json import to_json
from model.spec_text import leaves, shown
from runtime.artifacts.metadata import Artifact
from runtime.cli.console import DONE, Parser, printable, run
from runtime.cli.next_command import next_step
from runtime.cli.spec_options import spec_options

_WIDTH, _INDENT = 100, 12


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_inspect, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport inspect", description=__doc__.splitlines()[0])
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="a checkpoint, an .onnx file or an .engine; not needed if the code of --model loads "
        "the weights",
    )
    parser.add_argument(
        "--json", action="store_true", help="print only the spec, in the format of --spec"
    )
    add_spec_arguments(parser)
    return parser


def _inspect(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    builder = model_builder(args)
    suffix = "" if args.file is None else args.file.suffix.lower()
    if builder is None and suffix in (".onnx", ".engine"):
        artifact = _artifact(args.file)
        if args.json:
            print(to_json(artifact.spec, indent=2, complete=True))
            return DONE
        _print_artifact(artifact)
        return DONE
    from model.live.read import LiveModel
    from model.live.source import open_model

    checkpoint = open_model(args.file, spec_options(args), args.config, builder)
    if args.json:
        print(to_json(checkpoint.spec, indent=2, complete=True))
        return DONE
    tensors = checkpoint.tensors
    if isinstance(checkpoint, LiveModel):
        tensors = checkpoint.reference.state_dict()
    count = sum(tensor.numel() for tensor in tensors.values())
    _print_head(checkpoint.path, checkpoint.spec)
    print(f"{count / 1e6:.1f} M values in {len(tensors)} tensors")
    print(f"sha256 {checkpoint.sha256}")
    print("\n".join(describe(checkpoint.spec)))
    print_reading(checkpoint)
    print(next_step("export", *model_arguments(args, args.file)))
    return DONE


def _artifact(path: Path) -> Artifact:
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; expected an .onnx file or an .engine")
    if path.suffix.lower() == ".onnx":
        from export.onnx_file import read_onnx

        return read_onnx(path).artifact
    from runtime.artifacts.engine_manifest import read_engine_file

    return read_engine_file(path).artifact


def _print_artifact(artifact: Artifact) -> None:
    _print_head(artifact.path, artifact.spec)
    manifest = asdict(artifact.manifest)
    versions = manifest.pop("versions")
    entries = [f"{name} {value}" for name, value in manifest.items() if value is not None]
    tools = [f"{name} {version}" for name, version in versions.items()]
    print(f"{'manifest':<12}{printable(', '.join(entries))}")
    print(f"{'versions':<12}{printable(', '.join(tools))}")
    print("\n".join(describe(artifact.spec)))
    print(next_step("doctor", artifact.path))


def _print_head(path: Path, spec: ModelSpec) -> None:
    head = f"{path} · {spec.dialect} · {spec.architecture} · {spec.num_foreground} classes"
    print(printable(head))


def describe(spec: ModelSpec) -> list[str]:
    """One paragraph per part of the spec; "none" for a part that is absent."""
    lines = []
    for part in fields(spec):
        value = getattr(spec, part.name)
        if part.name in ("dialect", "architecture"):
            continue
        entries = [f"{path} {shown(v)}" for path, v in leaves(value)] if value else ["none"]
        text = printable(", ".join(entries))
        lines += textwrap.wrap(
            f"{part.name:<{_INDENT}}{text}", _WIDTH, subsequent_indent=" " * _INDENT
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
