"""Ranges from a calibration cache of TensorRT 8 or 10.

Each line has a tensor's name, a colon, and its float32 scale as big-endian hexadecimal. The first
line names the version and the calibrator.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from calib.calibration.untrusted_text import read_text
from calib.graph.formats import LARGEST_RANGE, SIGNED_LEVELS, SMALLEST_RANGE
from model.errors import ArtifactError

_MOST_BYTES = 64 << 20
_LEAST, _MOST = SMALLEST_RANGE / SIGNED_LEVELS, LARGEST_RANGE / SIGNED_LEVELS


def read_cache(path: Path, names: Iterable[str]) -> dict[str, float]:
    """The largest magnitude of each tensor.

    Args:
        path: the cache.
        names: of the tensors that are needed; others are ignored.

    Raises:
        ArtifactError: not a calibration cache, a repeated name, a scale that no activation can
            have, or a missing tensor.
    """
    scales = _scales(path)
    needed = list(names)
    missing = [name for name in needed if name not in scales]
    if missing:
        raise ArtifactError(
            f"{path}: {len(missing)} of {len(needed)} tensors have no range, for instance "
            f"'{missing[0]}'; expected a cache made from this graph, with its tensor names"
        )
    for name in needed:
        # NaN is in no range.
        if not _LEAST <= scales[name] <= _MOST:
            raise ArtifactError(
                f"{path}: expected a positive scale from {_LEAST:.0e} to {_MOST:.0e}, got "
                f"{scales[name]:g} for '{name[:60]}'; calibrate on photos"
            )
    return {name: scales[name] * SIGNED_LEVELS for name in needed}


def _scales(path: Path) -> dict[str, float]:
    remedy = "pass a TensorRT calibration cache to --import-cache"
    lines = read_text(path, _MOST_BYTES, "calibration cache", remedy).splitlines()
    if not lines or not lines[0].startswith("TRT-"):
        raise ArtifactError(
            f"{path}: not a TensorRT calibration cache; expected a first line like "
            "'TRT-8601-EntropyCalibration2'"
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        name, scale = _entry(path, number, line)
        if name in scales:
            raise ArtifactError(
                f"{path}: line {number}: '{name[:60]}' is repeated; expected each tensor once"
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
