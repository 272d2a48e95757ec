"""Damaged copies of photos, videos and weights: read, or refused by an error of ours."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError, ImageError, MaskportError
from tests.hostile import image_files
from tests.hostile.mutations import (
    ESCAPED,
    PHOTOS,
    READ,
    REFUSED,
    VIDEOS,
    WEIGHTS,
    WRONG,
    Random,
    mutated,
)  # fmt: skip

# Most formats describe their data here.
_HEADER_BYTES = 256


class Files:
    """Copies of some sound files; a subclass makes these and reads the copies."""

    def __init__(self, base: int, folder: Path) -> None:
        warnings.simplefilter("ignore")
        self._base, self._folder = base, folder
        self._sound = list(self.sound(folder).items())

    def sound(self, folder: Path) -> Mapping[str, bytes]:
        raise NotImplementedError

    def damaged(self, sound: bytes, random: Random) -> bytes:
        offsets = np.arange(min(len(sound), _HEADER_BYTES))
        return mutated(sound, random, offsets, 0.4)

    def read(self, path: Path, number: int) -> str:
        raise NotImplementedError

    def __call__(self, number: int) -> str:
        name, sound = self._sound[number % len(self._sound)]
        path = self._folder / name
        path.write_bytes(self.damaged(sound, np.random.default_rng([self._base, number])))
        try:
            return self.read(path, number)
        except MaskportError as error:
            return refusal(path, error)
        except BaseException as error:
            return f"{ESCAPED}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def refusal(path: Path, error: Exception) -> str:
    """Whether an error is of the right type and names its file."""
    if not isinstance(error, CheckpointError | ImageError):
        return f"{WRONG}: {type(error).__name__}"
    line = str(error)
    is_named = line.startswith(f"{path}: ") and "\n" not in line
    return REFUSED if is_named else f"{WRONG}: no name in the message: {line}"


class Photos(Files):
    """Photos in every format; every second copy is decoded at a fraction of its size."""

    def sound(self, _: Path) -> Mapping[str, bytes]:
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, 256, (72, 88, 3), np.uint8)
        kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
            "plain.jpg": ("RGB", "JPEG", {}),
            "progressive.jpg": ("RGB", "JPEG", {"progressive": True, "restart_marker_rows": 1}),
            "cmyk.jpg": ("CMYK", "JPEG", {}),
            "plain.png": ("RGB", "PNG", {}),
            "palette.png": ("P", "PNG", {"transparency": 3}),
            "deep.png": ("I;16", "PNG", {}),
            "plain.webp": ("RGB", "WEBP", {}),
            "plain.gif": ("P", "GIF", {}),
            "plain.tif": ("RGB", "TIFF", {}),
            "lzw.tif": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
            "jpeg.tif": ("RGB", "TIFF", {"compression": "jpeg"}),
            "plain.bmp": ("RGB", "BMP", {}),
            "plain.ppm": ("RGB", "PPM", {}),
        }
        files = {}
        for name, (mode, kind, options) in kinds.items():
            stream = io.BytesIO()
            source = Image.fromarray(noise)
            if mode == "I;16":
                source = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
            source.convert(mode).save(stream, kind, exif=image_files.exif(6), **options)
            files[name] = stream.getvalue()
        return files

    def damaged(self, sound: bytes, random: Random) -> bytes:
        data = super().damaged(sound, random)
        # Most keep the first bytes of their format, or they would be refused at once.
        if random.random() < 0.9:
            data = sound[:12] + data[12:]
        # For the same reason half of the PNGs get checksums that fit.
        is_png = data.startswith(image_files.SIGNATURE)
        return _with_checksums(data) if is_png and random.random() < 0.5 else data

    def read(self, path: Path, number: int) -> str:
        from runtime.sources.photos import decode, decode_at_least

        if number % 2 == 0:
            pixels = decode(path)
            return checked(pixels, pixels.shape[:2])
        decoded = decode_at_least(path, lambda hw: (hw[0] // 3, hw[1] // 3))
        return checked(decoded.pixels, decoded.full_hw)


def checked(pixels: NDArray[Any], full_hw: tuple[int, ...]) -> str:
    """Whether pixels are what a decoded photo of this size is."""
    from runtime.sources.decoded import MAX_PIXELS

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        return f"{WRONG}: {pixels.dtype} {pixels.shape}"
    is_within = all(0 < side <= full for side, full in zip(pixels.shape, full_hw, strict=False))
    is_allowed = is_within and full_hw[0] * full_hw[1] <= MAX_PIXELS
    return READ if is_allowed else f"{WRONG}: size {pixels.shape}"


def _with_checksums(data: bytes) -> bytes:
    """A PNG's chunks as far as they can be followed, each with its checksum."""
    parts, at = [image_files.SIGNATURE], len(image_files.SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        parts.append(image_files.chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts) + data[at:]


class Videos(Files):
    """Videos in every container; frames, then at most one error."""

    def sound(self, folder: Path) -> Mapping[str, bytes]:
        from tests.runtime.sources import clips

        noise = list(np.random.default_rng(0).integers(0, 256, (6, 32, 48, 3), np.uint8))
        suffixes = clips.LOSSLESS | clips.LOSSY
        paths = [clips.write(folder / f"clip.{suffix}", noise) for suffix in suffixes]
        return {path.name: path.read_bytes() for path in paths}

    def read(self, path: Path, _: int) -> str:
        from runtime.sources.open import open_sources

        photos = [item.photo for item in open_sources([str(path)])]
        errors = [photo for photo in photos if isinstance(photo, ImageError)]
        if not photos or errors not in ([], photos[-1:]):
            return f"{WRONG}: {len(errors)} errors among {len(photos)} items"
        for frame in photos:
            if isinstance(frame, np.ndarray) and (outcome := checked(frame, frame.shape)) != READ:
                return outcome
        return refusal(path, errors[0]) if errors else READ


class Weights(Files):
    """Weights in every format."""

    def sound(self, folder: Path) -> Mapping[str, bytes]:
        import torch
        from safetensors.torch import save

        from tests.keras_matterport import Widths, random_weights, write_h5
        from tests.small_checkpoint import saved, sound_state, zoo

        path = saved(folder)
        files = {"archive.pth": path.read_bytes()}
        torch.save(sound_state(), path, _use_new_zipfile_serialization=False)
        files["legacy.pth"] = path.read_bytes()
        files["plain.safetensors"] = save(sound_state())
        files["old.pkl"], files["new.pkl"] = zoo(2), zoo(4)
        if find_spec("h5py") is not None:
            write_h5(folder / "keras.h5", random_weights(Widths()))
            files["keras.h5"] = (folder / "keras.h5").read_bytes()
        return files

    def read(self, path: Path, _: int) -> str:
        from model.checkpoint import load

        load(path)
        return READ


KINDS: dict[str, Callable[[int, Path], Files]] = {
    PHOTOS: Photos, VIDEOS: Videos, WEIGHTS: Weights
}  # fmt: skip
