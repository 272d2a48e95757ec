"""The channels that a model takes of a photo, and the values that are its black and its white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.arrays import Float32, UInt8
from model.errors import ImageError, UsageError

ValueRange = tuple[float, float]
Pixels = npt.NDArray[Any]
"""Upright samples [h, w, C] as they are stored: uint8, or of a deeper type."""
Scaled = npt.NDArray[np.uint8 | np.float32]
"""Pixels on the scale from 0 to 255: uint8, or float32 of deeper samples."""

_WHITE = 255
# Types whose whole range is black to white unless the user gives another.
_FULL_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """What a model takes of a photo.

    Attributes:
        channels: of the model's input.
        value_range: stored values that become 0 and 1; values outside are clipped. None takes the
            whole range of 8 or 16 bits.

    Raises:
        UsageError: a range that is not finite or not ascending.
    """

    channels: int = 3
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        """Check the range."""
        if self.value_range is None:
            return
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"--value-range: expected LOW:HIGH, LOW below HIGH, got {low}:{high}")

    @property
    def is_rgb(self) -> bool:
        """Whether photos are decoded to 8-bit RGB, as by `runtime.sources.photos.decode`."""
        return self.channels == 3 and self.value_range is None

    def check(self, pixels: Pixels) -> None:
        """Require samples that the range can be applied to.

        Args:
            pixels: [h, w, C].

        Raises:
            ImageError: samples of a type without a range, a range that the type cannot hold, or
                samples that are not finite.
        """
        kind, most = pixels.dtype.kind, _FULL_RANGE.get(pixels.dtype)
        if kind not in "uif":
            raise ImageError(f"{pixels.dtype} samples; expected whole or real numbers")
        if self.value_range is None:
            if most is None:
                raise ImageError(
                    f"{pixels.dtype} samples have no usual black and white; give --value-range "
                    f"LOW:HIGH (value_range), such as {_example(pixels)}"
                )
            return
        if kind != "f" and self.value_range[1] > np.iinfo(pixels.dtype).max:
            raise ImageError(
                f"{pixels.dtype} samples end at {np.iinfo(pixels.dtype).max}, below the "
                f"--value-range's {self.value_range[1]:g}; give photos of one depth and their range"
            )
        if kind == "f" and not np.isfinite(pixels).all():
            raise ImageError("samples that are not finite (NaN or infinite); fill them first")

    def scaled(self, pixels: Pixels) -> Scaled:
        """Put checked samples [h, w, C] on the scale from 0 to 255."""
        if self.value_range is None and pixels.dtype == np.uint8:
            return pixels
        low, high = self.value_range or (0.0, _FULL_RANGE[pixels.dtype])
        # Integers of 32 bits and doubles lose bits in float32 before the range is applied.
        wide = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
        scaled: npt.NDArray[Any] = pixels.astype(wide)
        np.subtract(scaled, wide(low), out=scaled)
        np.multiply(scaled, wide(_WHITE / (high - low)), out=scaled)
        np.clip(scaled, 0, _WHITE, out=scaled)
        return scaled.astype(np.float32, copy=False)


RGB = PixelFormat()


def to_bytes(scaled: Scaled) -> UInt8:
    """Round pixels on the scale from 0 to 255 to uint8."""
    if scaled.dtype == np.uint8:
        return scaled.astype(np.uint8, copy=False)
    rounded: Float32 = np.rint(scaled)
    return rounded.astype(np.uint8)


def other_channels(channels: int, bands: int, kind: str) -> ImageError:
    """The error of a photo with another number of bands than the model's channels.

    Args:
        channels: of the model.
        bands: of the photo.
        kind: of the photo.
    """
    counted = "1 channel" if channels == 1 else f"{channels} channels"
    return ImageError(
        f"expected {counted}, as the model takes, got {bands} ({kind}); give a photo of the "
        "model's bands"
    )


def parse_value_range(text: str) -> ValueRange:
    """Parse "LOW:HIGH", as 0:4095.

    Raises:
        UsageError: not two ascending numbers.
    """
    parts = text.split(":")
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise UsageError(
            f"--value-range: expected LOW:HIGH, such as 0:4095, got '{text}'"
        ) from None
    PixelFormat(value_range=(low, high))
    return low, high


def _example(pixels: Pixels) -> str:
    return "0:1" if pixels.dtype.kind == "f" else "0:4095"
