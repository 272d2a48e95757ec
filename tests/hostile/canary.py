"""A sound little checkpoint, and the hostile files that are made from it or beside it."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.families.torchvision import DIALECT
from model.mask_rcnn import MaskRCNN
from model.spec import BoxHeadSpec, ClassSpec, FpnSpec, MaskHeadSpec, ModelSpec, ResNetSpec

SPEC = ModelSpec(
    dialect="torchvision",
    architecture="maskrcnn_resnet_10_narrow_fpn",
    body=ResNetSpec((1, 1, 1, 1), "basic", 8, (8, 12, 16, 24), (8, 12, 16, 24)),
    classes=ClassSpec(("__background__", "class_1", "class_2")),
    fpn=FpnSpec(8),
    box=BoxHeadSpec(fc_widths=(16, 16)),
    mask=MaskHeadSpec(conv_widths=(8,), deconv_width=8),
)
LANDMARK = "roi_heads.box_predictor.cls_score.weight"


@cache
def _values() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {DIALECT.original(n): t.clone() for n, t in MaskRCNN(SPEC).state_dict().items()}


def sound_state() -> dict[str, Tensor]:
    """torchvision's names and shapes of a Mask R-CNN with 2 classes, small enough to test."""
    return dict(_values())


@dataclass(frozen=True)
class Trap:
    """Touches `canary` when it is unpickled by anything that executes."""

    canary: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


Maker = Callable[[Path, Path], None]


def _saved(content: Callable[[Path], object], **options: Any) -> Maker:
    return lambda path, canary: torch.save(content(canary), path, **options)


def _changed(name: str, value: Callable[[Tensor], object]) -> Maker:
    """A sound state dict in which one tensor was replaced."""
    return _saved(lambda _: {**sound_state(), name: value(sound_state()[name])})


def _raw_pickle(protocol: int) -> Maker:
    def make(path: Path, canary: Path) -> None:
        path.write_bytes(pickle.dumps({LANDMARK: Trap(canary)}, protocol))

    return make


def _bytes(content: bytes) -> Maker:
    return lambda path, _: path.write_bytes(content) and None


def _legacy_tar(path: Path, canary: Path) -> None:
    """The container of PyTorch before 0.2, with code in every member."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            content = pickle.dumps(Trap(canary), 2)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def _torchscript(path: Path, _: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), str(path))


def _compressed(path: Path, _: Path) -> None:
    """200 MB of zeros in 200 kB, in PyTorch's layout."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({}, 2))
        archive.writestr("weights/data/0", bytes(200_000_000))


def _absurd_sizes(path: Path, _: Path) -> None:
    """A central directory whose first entry claims 4 GB."""
    torch.save(sound_state(), path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(data)


def _deep(levels: int) -> object:
    nested: dict[str, object] = {"model": sound_state()}
    for _ in range(levels):
        nested = {"model": nested}
    return nested


def _deep_pickle(path: Path, _: Path) -> None:
    """Too deep for Python's own pickler, hence by hand: 200,000 nested dicts."""
    opened = b"}X\x05\x00\x00\x00model" * 200_000
    body = b"\x80\x02" + opened + b"}" + b"s" * 200_000 + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", body)
        archive.writestr("weights/version", b"3\n")


def _cycle(_: Path) -> object:
    nested: dict[str, object] = {}
    nested["model"] = nested
    return nested


def _swollen_keys(_: Path) -> object:
    """A key whose repr is longer than any memory, under no tensors."""
    key: object = OrderedDict
    nested: list[Any] = [0]
    for _level in range(60):
        nested = [nested, nested]
    return {"a": nested, ("x", 1): key is None}


def _safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


HOSTILE: dict[str, Maker] = {
    "code": _saved(lambda canary: {LANDMARK: Trap(canary)}),
    "code-beside-weights": _saved(lambda canary: {**sound_state(), "extra": Trap(canary)}),
    "code-legacy-file": _saved(
        lambda canary: {LANDMARK: Trap(canary)}, _use_new_zipfile_serialization=False
    ),
    "code-raw-pickle-2": _raw_pickle(2),
    "code-raw-pickle-4": _raw_pickle(4),
    "code-legacy-tar": _legacy_tar,
    "whole-model": _saved(lambda _: MaskRCNN(SPEC)),
    "whole-model-legacy": _saved(lambda _: nn.Linear(2, 2), _use_new_zipfile_serialization=False),
    "whole-model-protocol-4": _saved(lambda _: nn.Linear(2, 2), pickle_protocol=4),
    "whole-model-wrapped": _saved(lambda _: {"model": nn.Linear(2, 2), "epoch": 3}),
    "numpy-weights": _saved(lambda _: {LANDMARK: np.zeros((3, 16), np.float32)}),
    "torchscript": _torchscript,
    "empty": _bytes(b""),
    "one-byte": _bytes(b"\x80"),
    "zip-magic-only": _bytes(b"PK\x03\x04"),
    "empty-zip": _bytes(b"PK\x05\x06" + bytes(18)),
    "random-bytes": _bytes(np.random.default_rng(0).bytes(5000)),
    "text": _bytes(b"<!DOCTYPE html><html>404: Not Found</html>\n" * 9),
    "zip-bomb": _compressed,
    "absurd-sizes": _absurd_sizes,
    "no-tensors": _saved(lambda _: {"epoch": 3, "loss": [0.1, 0.2], "note": "a\nb\x1b[2J"}),
    "empty-dict": _saved(lambda _: {}),
    "tensor": _saved(lambda _: torch.zeros(3)),
    "list": _saved(lambda _: [[sound_state()], [1, [2, [3]]]]),
    "none": _saved(lambda _: None),
    "swollen-values": _saved(_swollen_keys),
    "cycle": _saved(_cycle),
    "too-many-wrappers": _saved(lambda _: _deep(50)),
    "deep-dicts": _deep_pickle,
    "integer-keys": _saved(lambda _: dict(enumerate(sound_state().values()))),
    "huge-integer-key": _saved(lambda _: {2**2000: torch.zeros(2)}),
    "long-name": _saved(lambda _: {**sound_state(), "x" * 100_000: torch.zeros(2)}),
    "many-names": _saved(lambda _: {f"w{i}": torch.zeros(()) for i in range(20_001)}),
    "name-with-newline": _saved(lambda _: {**sound_state(), "a\nb\x1b[2J": torch.zeros(2)}),
    "nan": _changed(LANDMARK, lambda t: torch.full_like(t, float("nan"))),
    "overflowed-half": _changed(LANDMARK, lambda t: (t + 1e9).half()),
    "integers": _changed(LANDMARK, lambda t: t.long()),
    "booleans": _changed(LANDMARK, lambda t: t > 0),
    "complex": _changed(LANDMARK, lambda t: t.to(torch.complex64)),
    "sparse": _changed(LANDMARK, lambda t: t.to_sparse()),
    "sparse-csr": _changed(LANDMARK, lambda t: t.to_sparse_csr()),
    "meta": _changed(LANDMARK, lambda t: t.to("meta")),
    "quantised": _changed(
        LANDMARK, lambda t: torch.quantize_per_tensor(t.contiguous(), 0.1, 0, torch.qint8)
    ),
    "no-elements": _changed(LANDMARK, lambda t: t.new_zeros(10**12, 0)),
    "scalar": _changed(LANDMARK, lambda t: t.new_zeros(())),
    "expanded": _changed(LANDMARK, lambda t: t.new_zeros(1, 1).expand(10**7, 10**7)),
    "expanded-half": _changed(LANDMARK, lambda t: t.new_zeros(1, 1).half().expand(10**7, 10**7)),
    "counter-of-odd-shape": _saved(
        lambda _: {**sound_state(), "backbone.body.bn1.num_batches_tracked": torch.zeros(7)}
    ),
}
HOSTILE_SAFETENSORS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x08\x00",
    "random": np.random.default_rng(1).bytes(4000),
    "claims-a-huge-header": _safetensors(b"{}", 2**62),
    "not-json": _safetensors(b"}{}{"),
    "no-tensors": _safetensors(b"{}"),
    "offsets-outside": _safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "huge-shape": _safetensors(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}'
    )
    + bytes(4),
    "unknown-type": _safetensors(b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}')
    + bytes(4),
    "torch-file": b"PK\x03\x04" + bytes(64),
}
