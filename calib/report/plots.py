"""Plots: sensitivity of groups, and agreement against the fraction in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calib.search.budget import BudgetSearch
from calib.search.sensitivity import GroupSensitivity
from runtime.cli.figure import BLUE, ORANGE, new_figure, save_figure


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
