"""`maskport convert`: convert a checkpoint of any framework to .safetensors with its spec.

python -m export.convert weights.pkl weights.safetensors --config config.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.cli_spec_options import (
    add_spec_arguments,
    model_builder,
    print_reading,
)
from model.errors import ModelError, UsageError
from runtime.cli.console import DONE, Parser, run
from runtime.cli.next_command import next_step
from runtime.cli.spec_options import spec_options
from runtime.files import atomic_path, refuse_overwrite

if TYPE_CHECKING:
    from model.live.source import AnyModel


def convert(checkpoint: AnyModel, output: Path) -> None:
    """Write the weights under the network's own names, float32, with the spec in the header.

    The file needs no configuration and no assumptions when it is opened: the spec is complete.

    Raises:
        UsageError: the output is not named `.safetensors`, or is the input.
        ModelError: a live model with parts of its own, which no spec describes.
        ArtifactError: the output cannot be written.
    """
    from safetensors.torch import save_file

    from model.files.stored_spec import header_of

    if output.suffix.lower() != ".safetensors":
        raise UsageError(f"{output}: expected a name that ends in .safetensors")
    refuse_overwrite(output, checkpoint.path)
    custom = getattr(checkpoint, "kept_paths", ())
    if custom:
        raise ModelError(
            f"{checkpoint.path}: a spec cannot describe its parts {'; '.join(custom)}; export it "
            "instead"
        )
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    with atomic_path(output) as temporary:
        save_file(tensors, temporary, header_of(checkpoint.spec))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_convert, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport convert", description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, help="weights: .pth, .safetensors, .pkl, .h5")
    parser.add_argument("output", type=Path, help="output file, .safetensors")
    add_spec_arguments(parser)
    return parser


def _convert(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    from model.live.source import open_model

    checkpoint = open_model(args.weights, spec_options(args), args.config, model_builder(args))
    convert(checkpoint, args.output)
    spec, size = checkpoint.spec, args.output.stat().st_size
    print(
        f"{args.output} · {size / 1e6:.0f} MB · {spec.dialect} · {spec.architecture} · "
        f"{spec.num_foreground} classes"
    )
    print_reading(checkpoint)
    print(next_step("export", args.output))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
