"""The options of photos that are not 8-bit RGB."""

from __future__ import annotations

import argparse

from model.errors import UsageError
from runtime.sources.pixel_format import ValueRange, parse_value_range


def add_value_range(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--value-range`."""
    group.add_argument(
        "--value-range",
        type=_value_range,
        metavar="LOW:HIGH",
        help="stored values that become 0 and 1, as 0:4095 for 12 bits in 16; values outside are "
        "clipped; default: the whole range of 8 or 16 bits",
    )


def add_bands(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add `--bands`."""
    group.add_argument(
        "--bands",
        type=_bands,
        metavar="R,G,B",
        help="bands to draw on, counted from 1; one is drawn gray; default: the first three",
    )


def _value_range(text: str) -> ValueRange:
    try:
        return parse_value_range(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--value-range: ")) from None


def _bands(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected bands such as 4,1,2, got '{text}'") from None


def add_photo_options(parser: argparse.ArgumentParser) -> None:
    """Add both, as a group."""
    group = parser.add_argument_group("photos of other than 8-bit RGB")
    add_value_range(group)
    add_bands(group)
