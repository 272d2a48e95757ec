"""Draws the results of `bench/precision_budget.py`: agreement against 8 bits and against time.

With `--groups` also the agreement that each group of layers loses.
`python bench/trade_off.py docs/results/precision_budget.json docs/images/precision_tradeoff.png`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from calib.evaluation.agreement import Scores
from calib.graph.groups import Group
from calib.report.plots import draw_sensitivity
from calib.search.sensitivity import GroupSensitivity
from runtime.cli.figure import BLUE, ORANGE, new_figure, save_figure

# AP, its color, and the marker of budgets and of presets.
_SERIES = (("box AP", BLUE, "o"), ("mask AP", ORANGE, "s"))
_AXES = (("in 8 bits", "multiply-adds in 8 bits, %"), ("ms", "ms per photo, on the CPU"))


def main() -> int:
    """Draw the figures of a results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--groups", type=Path, help="PNG of the points that each group loses")
    args = parser.parse_args()
    measured = json.loads(args.results.read_text("utf-8"))
    draw(measured["rows"], args.picture)
    if args.groups is not None:
        draw_groups(measured["groups"], args.groups)
    return 0


def draw(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw budgets as lines and presets as single markers.

    Args:
        rows: of the table of `bench/precision_budget.py`, by column.
        path: of the PNG.
    """
    figure, both = new_figure(9.5, 4.2, columns=2)
    budgets = [row for row in rows if not row["choice"].startswith("preset")]
    presets = [row for row in rows if row not in budgets]
    for axes, (column, title) in zip(both, _AXES, strict=True):
        for name, color, marker in _SERIES:
            line = sorted(budgets, key=lambda row: _number(row[column]))
            x = [_number(row[column]) for row in line]
            values = [_number(row[name]) for row in line]
            axes.plot(x, values, f"{marker}-", color=color, label=f"{name}, budgets")
            x = [_number(row[column]) for row in presets]
            values = [_number(row[name]) for row in presets]
            axes.plot(x, values, marker, color=color, fillstyle="none", label=f"{name}, presets")
        _write_titles(axes, rows, column)
        axes.set_xlabel(title)
    both[0].set_ylabel("agreement AP with the eager model")
    both[0].legend(loc="lower left")
    save_figure(figure, path)


def draw_groups(groups: Sequence[Mapping[str, str]], path: Path) -> None:
    """Points lost by each group alone, as `maskport quantize --run-dir` draws them.

    Args:
        groups: of the second table of `bench/precision_budget.py`, by column.
        path: of the PNG.
    """
    draw_sensitivity([_sensitivity(row) for row in groups], path)


def _sensitivity(row: Mapping[str, str]) -> GroupSensitivity:
    box, mask = (100.0 - float(row[f"{kind} AP lost"]) for kind in ("box", "mask"))
    fraction, scores = _number(row["of multiply-adds"]) / 100.0, Scores(box, box, mask, mask)
    return GroupSensitivity(Group(row["group"], frozenset()), scores, None, fraction)


def _write_titles(axes: Any, rows: Sequence[Mapping[str, str]], column: str) -> None:
    """Write the name of each choice below its mask AP."""
    for row in rows:
        point = (_number(row[column]), _number(row["mask AP"]))
        title = row["choice"].removeprefix("budget ").removeprefix("preset ")
        axes.annotate(title, point, (0, -14), textcoords="offset points", ha="center", fontsize=8)
    axes.margins(x=0.12, y=0.12)


def _number(cell: str) -> float:
    return float(cell.removesuffix("%"))


if __name__ == "__main__":
    sys.exit(main())
