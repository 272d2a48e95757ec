"""A plot per quantized tensor: counts of its magnitudes, and the limit of its code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from calib.report.tensor_stats import TensorHistogram
from runtime.cli.figure import BLUE, RED, new_figure, save_figure
from runtime.files import make_folder

_BARS = 256


def draw_histograms(
    tensors: Sequence[TensorHistogram],
    folder: Path,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Path]:
    """Draw one PNG for each, named by its position in the graph, its role and its name.

    `advance` takes the number of plots done.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the folder cannot be made or written.
    """
    make_folder(folder)
    # Plots of an earlier run, which may have had other tensors.
    for old in folder.glob("[0-9][0-9][0-9]_*.png"):
        old.unlink(missing_ok=True)
    paths = []
    for number, tensor in enumerate(tensors):
        # A tensor's name may contain any character.
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{tensor.role}_{tensor.name}")[:100]
        paths.append(folder / f"{number:03}_{plain}.png")
        _draw(tensor, paths[-1])
        advance(1)
    return paths


def _draw(tensor: TensorHistogram, path: Path) -> None:
    figure, axes = new_figure(6.5, 3.2)
    bins = -(-len(tensor.counts) // _BARS)
    padded = np.pad(tensor.counts, (0, -len(tensor.counts) % bins))
    bars = padded.reshape(-1, bins).sum(axis=1)
    width = bins * tensor.bin_width
    edges = np.arange(len(bars) + 1) * width
    # A logarithmic axis has no zero; half a value is below all counts.
    axes.stairs(bars, edges, fill=True, baseline=0.5, color=BLUE)
    axes.axvline(tensor.limit, color=RED, linestyle="--", label="largest code")
    axes.set_yscale("log")
    axes.set_xlabel("magnitude")
    axes.set_ylabel("values")
    name = ascii(f"{tensor.role}: {tensor.name}"[:100])[1:-1]
    axes.set_title(
        f"{name}\nlargest {tensor.largest:.4g}, limit {tensor.limit:.4g} in {tensor.code}, "
        f"{tensor.clipped:.2%} clipped",
        fontsize=9,
        parse_math=False,
    )
    axes.legend(fontsize=8)
    save_figure(figure, path)
