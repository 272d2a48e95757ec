"""Plots: sensitivity of groups, agreement by the fraction in 8 bits, tensor histograms."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from calib.report.tensor_stats import TensorHistogram
from calib.search.search import BudgetSearch
from calib.search.sensitivity import GroupSensitivity
from runtime.cli.figure import BLUE, ORANGE, RED, new_figure, save_figure
from runtime.files import make_folder

_BARS = 256  # of a histogram


def draw_sensitivity(ranked: Sequence[GroupSensitivity], path: Path) -> None:
    """Points of agreement lost by each group alone; the first are the first to stay in floats.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    figure, axes = new_figure(8.0, 1.2 + 0.26 * len(ranked))
    rows = range(len(ranked))
    axes.barh(rows, [100 - s.scores.box for s in ranked], 0.4, color=BLUE, label="box AP")
    if ranked and ranked[0].scores.mask is not None:
        losses = [100 - (s.scores.mask or 0.0) for s in ranked]
        axes.barh([r + 0.4 for r in rows], losses, 0.4, color=ORANGE, label="mask AP")
    titles = [f"{s.group.title}  ({s.fraction:.1%})" for s in ranked]
    axes.set_yticks([r + 0.2 for r in rows], titles, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("points of agreement AP lost when only this group is in 8 bits")
    axes.set_title("in brackets: fraction of multiply-adds", fontsize=9)
    axes.legend()
    save_figure(figure, path)


def draw_search(search: BudgetSearch, path: Path) -> None:
    """Agreement of the candidates against their fraction of multiply-adds in 8 bits.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    figure, axes = new_figure(6.5, 4.0)
    tried = search.candidates
    percents = [100 * one.fraction for one in tried]
    axes.plot(percents, [c.scores.box for c in tried], "o-", color=BLUE, label="box AP")
    masks = [one.scores.mask for one in tried]
    if None not in masks:
        axes.plot(percents, masks, "s-", color=ORANGE, label="mask AP")
    for percent, one in zip(percents, tried, strict=True):
        axes.annotate(f"{one.kept} kept", (percent, one.scores.box), fontsize=7, rotation=30)
    axes.axvline(100 * search.chosen.fraction, color="grey", linestyle=":", label="chosen")
    axes.set_xlabel("multiply-adds in 8 bits, %")
    axes.set_ylabel("agreement AP")
    axes.legend()
    save_figure(figure, path)


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
