"""Ranges out of a calibration cache of TensorRT 8 or 10.

A line of text per tensor: its name, a colon, and the bits of its float32 scale in hexadecimal, the
highest byte first. The first line names the version and the calibrator.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from calib.calibration.untrusted_text import read_text
from calib.writers.pairs import LARGEST_RANGE, SIGNED_LEVELS, SMALLEST_RANGE
from model.errors import ArtifactError

_MOST_BYTES = 64 << 20
_LEAST, _MOST = SMALLEST_RANGE / SIGNED_LEVELS, LARGEST_RANGE / SIGNED_LEVELS


def read_cache(path: Path, names: Iterable[str]) -> dict[str, float]:
    """The largest magnitude of each tensor.

    Args:
        path: the cache.
        names: tensors that must be in it; others there are left out.

    Raises:
        ArtifactError: not such a file, a name that stands there twice, a scale that no activation
            has, or tensors that are not in it.
    """
    scales = _scales(path)
    wanted = list(names)
    missing = [name for name in wanted if name not in scales]
    if missing:
        raise ArtifactError(
            f"{path}: {len(missing)} of {len(wanted)} tensors are not in it, for instance "
            f"'{missing[0]}'; expected a cache of this graph, whose tensors have these names"
        )
    for name in wanted:
        # NaN is in no range.
        if not _LEAST <= scales[name] <= _MOST:
            raise ArtifactError(
                f"{path}: expected a positive scale from {_LEAST:.0e} to {_MOST:.0e}, got "
                f"{scales[name]:g} for '{name[:60]}': 8 bits of that hold no activation; "
                "calibrate on photos"
            )
    return {name: scales[name] * SIGNED_LEVELS for name in wanted}


def _scales(path: Path) -> dict[str, float]:
    remedy = "give a calibration cache of TensorRT with --import-cache"
    lines = read_text(path, _MOST_BYTES, "calibration cache", remedy).splitlines()
    if not lines or not lines[0].startswith("TRT-"):
        raise ArtifactError(
            f"{path}: not a calibration cache of TensorRT; expected a first line like "
            "'TRT-8601-EntropyCalibration2'"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        name, scale = _entry(path, number, line)
        if name in scales:
            raise ArtifactError(
                f"{path}: line {number}: '{name[:60]}' stands there twice; expected each tensor "
                "once, as TensorRT writes them"
            )
        scales[name] = scale
    return scales


def _entry(path: Path, number: int, line: str) -> tuple[str, float]:
    name, colon, digits = line.rpartition(":")
    try:
        if not colon:
            raise ValueError("no colon")
        (scale,) = struct.unpack(">f", bytes.fromhex(digits.strip().rjust(8, "0")))
    except (ValueError, struct.error) as error:
        raise ArtifactError(
            f"{path}: line {number}: expected 'name: 3d41ab2c', got '{line[:60]}'"
        ) from error
    return name.strip(), float(scale)
