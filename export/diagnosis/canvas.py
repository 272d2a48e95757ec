"""The canvas that landscape photos fill after a spec's resize."""

from __future__ import annotations

from model.spec import PreprocessSpec


def landscape_hw(pre: PreprocessSpec) -> tuple[int, int]:
    """Height and width in canvas pixels: the resize's limits, rounded up to the divisor."""
    divisor = pre.size_divisor
    return -(-pre.short_side // divisor) * divisor, -(-pre.long_side // divisor) * divisor
