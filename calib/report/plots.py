"""Pictures of a quantisation: what each group costs, and what keeping groups buys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calib.search.budget import Ladder
from calib.search.sensitivity import Sensitivity
from runtime.cli.figure import BLUE, ORANGE, new_figure, save_figure

_BOX, _MASK = BLUE, ORANGE


def draw_sensitivity(ranked: Sequence[Sensitivity], path: Path) -> None:
    """Points of agreement lost by each group alone, in the order in which they would be kept.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    figure, axes = new_figure(8.0, 1.2 + 0.26 * len(ranked))
    places = range(len(ranked))
    axes.barh(places, [100 - s.scores.box for s in ranked], 0.4, color=_BOX, label="box AP")
    if ranked and ranked[0].scores.mask is not None:
        losses = [100 - (s.scores.mask or 0.0) for s in ranked]
        axes.barh([p + 0.4 for p in places], losses, 0.4, color=_MASK, label="mask AP")
    titles = [f"{s.group.title}  ({s.share:.1%})" for s in ranked]
    axes.set_yticks([p + 0.2 for p in places], titles, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("points of agreement AP lost when only this group is in 8 bits")
    axes.set_title("kept first at the top; in brackets the share of multiply-adds", fontsize=9)
    axes.legend()
    save_figure(figure, path)


def draw_ladder(ladder: Ladder, path: Path) -> None:
    """Agreement against the share of multiply-adds in 8 bits.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        ArtifactError: the file cannot be written.
    """
    figure, axes = new_figure(6.5, 4.0)
    shares = [100 * rung.share for rung in ladder.rungs]
    axes.plot(shares, [r.scores.box for r in ladder.rungs], "o-", color=_BOX, label="box AP")
    masks = [r.scores.mask for r in ladder.rungs]
    if None not in masks:
        axes.plot(shares, masks, "s-", color=_MASK, label="mask AP")
    for share, rung in zip(shares, ladder.rungs, strict=True):
        axes.annotate(f"{rung.kept} kept", (share, rung.scores.box), fontsize=7, rotation=30)
    axes.axvline(100 * ladder.chosen.share, color="grey", linestyle=":", label="chosen")
    axes.set_xlabel("share of multiply-adds in 8 bits, %")
    axes.set_ylabel("agreement AP")
    axes.legend()
    save_figure(figure, path)
