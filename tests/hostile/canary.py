"""A sound little checkpoint, and the hostile files that are made from it or beside it."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.families.torchvision.dialect import DIALECT
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
STATE_DICT_LINE = 'torch.save(model.state_dict(), "weights.pth")'


@cache
def _values() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {DIALECT.original(n, SPEC): t.clone() for n, t in MaskRCNN(SPEC).state_dict().items()}


def sound_state() -> dict[str, Tensor]:
    """Names and shapes as torchvision's, of a Mask R-CNN with 2 classes, small enough to test."""
    return dict(_values())


def saved(folder: Path, state: Mapping[str, object] | None = None) -> Path:
    """Write `weights.pth`, by default the sound one."""
    path = folder / "weights.pth"
    torch.save(dict(sound_state() if state is None else state), path)
    return path


@dataclass(frozen=True)
class Trap:
    """Touches `canary` when it is unpickled by anything that executes."""

    canary: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


Maker = Callable[[Path, Path], None]


def make(kind: str, path: Path, canary: Path) -> None:
    """Write the hostile file `kind`; its code, if it has any, would touch `canary`."""
    with warnings.catch_warnings():
        # Quantised, CSR and TorchScript files are old-fashioned, and torch says so.
        warnings.simplefilter("ignore")
        HOSTILE[kind](path, canary)


def _saved(content: Callable[[Path], object], **options: Any) -> Maker:
    return lambda path, canary: torch.save(content(canary), path, **options)


def _changed(value: Callable[[Tensor], object], name: str = LANDMARK) -> Maker:
    """A sound state dict in which one tensor was replaced."""
    return _saved(lambda _: {**sound_state(), name: value(sound_state()[name])})


def _with(extra: Callable[[Path], dict[Any, object]]) -> Maker:
    return _saved(lambda canary: {**sound_state(), **extra(canary)})


def _raw_pickle(protocol: int) -> Maker:
    def write(path: Path, canary: Path) -> None:
        path.write_bytes(pickle.dumps({LANDMARK: Trap(canary)}, protocol))

    return write


def _bytes(content: bytes) -> Maker:
    def write(path: Path, _: Path) -> None:
        path.write_bytes(content)

    return write


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


def _archive(path: Path, body: bytes, **others: bytes) -> None:
    """A file in PyTorch's layout around a pickle of our own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", body)
        archive.writestr("weights/version", b"3\n")
        for name, content in others.items():
            archive.writestr(f"weights/{name}", content)


def _compressed(path: Path, _: Path) -> None:
    """50 MB of zeros in 50 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", pickle.dumps({}, 2))
        archive.writestr("weights/data/0", bytes(50_000_000))


def _absurd_sizes(path: Path, _: Path) -> None:
    """A central directory whose first entry claims 4 GB."""
    torch.save(sound_state(), path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(data)


def _absurd_storage(is_zip: bool) -> Maker:
    """Eleven values on the disk of which the pickle claims two thousand million."""

    def write(path: Path, _: Path) -> None:
        torch.save({LANDMARK: torch.ones(11)}, path, _use_new_zipfile_serialization=is_zip)
        claimed = b"J" + struct.pack("<i", 2_000_000_000)
        if not is_zip:
            path.write_bytes(path.read_bytes().replace(b"K\x0b", claimed))
            return
        with zipfile.ZipFile(path) as archive:
            content = {e.filename: archive.read(e) for e in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                is_pickle = name.endswith("data.pkl")
                archive.writestr(name, data.replace(b"K\x0b", claimed) if is_pickle else data)

    return write


def _nested(levels: int) -> Callable[[Path], object]:
    def content(_: Path) -> object:
        nested: dict[str, object] = {"model": sound_state()}
        for _level in range(levels):
            nested = {"model": nested}
        return nested

    return content


def _deep_dicts(path: Path, _: Path) -> None:
    """Too deep for Python's own pickler, hence by hand: 50,000 dicts in each other."""
    opened = b"}X\x05\x00\x00\x00model" * 50_000
    _archive(path, b"\x80\x02" + opened + b"}" + b"s" * 50_000 + b".")


def _tower(step: bytes, levels: int, legacy: bool = False) -> Maker:
    """A dict whose key is a tuple of a tuple of a tuple; its hash is what kills."""
    body = b"\x80\x02}" + b")" + step * levels + b"Ns."

    def write(path: Path, _: Path) -> None:
        if not legacy:
            _archive(path, body)
            return
        torch.save({}, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        at = whole.rindex(pickle.dumps({}, 2))
        path.write_bytes(whole[:at] + body)

    return write


def _cycle(_: Path) -> object:
    nested: dict[str, object] = {}
    nested["model"] = nested
    return nested


def _swollen(_: Path) -> object:
    """Small in the file; its repr is longer than any memory."""
    nested: list[Any] = [0]
    for _level in range(60):
        nested = [nested, nested]
    return {"a": nested}


HOSTILE: dict[str, Maker] = {
    "code": _saved(lambda canary: {LANDMARK: Trap(canary)}),
    "code-beside-weights": _with(lambda canary: {"extra": Trap(canary)}),
    "code-legacy-file": _saved(
        lambda canary: {LANDMARK: Trap(canary)}, _use_new_zipfile_serialization=False
    ),
    "code-raw-pickle-0": _raw_pickle(0),
    "code-raw-pickle-2": _raw_pickle(2),
    "code-raw-pickle-4": _raw_pickle(4),
    "code-legacy-tar": _legacy_tar,
    "whole-model": _saved(lambda _: MaskRCNN(SPEC)),
    "whole-model-legacy-file": _saved(
        lambda _: nn.Linear(2, 2), _use_new_zipfile_serialization=False
    ),
    "whole-model-protocol-4": _saved(lambda _: nn.Linear(2, 2), pickle_protocol=4),
    "whole-model-wrapped": _saved(lambda _: {"model": nn.Linear(2, 2), "epoch": 3}),
    "numpy-weights": _saved(lambda _: {LANDMARK: np.zeros((3, 16), np.float32)}),
    "torchscript": _torchscript,
    "empty": _bytes(b""),
    "one-byte": _bytes(b"\x80"),
    "zip-magic-only": _bytes(b"PK\x03\x04"),
    "empty-zip": _bytes(b"PK\x05\x06" + bytes(18)),
    "random-bytes": _bytes(np.random.default_rng(0).bytes(5000)),
    "web-page": _bytes(b"<!DOCTYPE html><html>404: Not Found</html>\n" * 9),
    "zip-bomb": _compressed,
    "absurd-sizes": _absurd_sizes,
    "absurd-storage": _absurd_storage(is_zip=True),
    "absurd-storage-legacy-file": _absurd_storage(is_zip=False),
    "no-tensors": _saved(lambda _: {"epoch": 3, "loss": [0.1, 0.2], "a\nb\x1b[2J": "note"}),
    "empty-dict": _saved(lambda _: {}),
    "tensor": _saved(lambda _: torch.zeros(3)),
    "nested-lists": _saved(lambda _: [[sound_state()], [1, [2, [3]]]]),
    "none": _saved(lambda _: None),
    "swollen-values": _saved(_swollen),
    "cycle": _saved(_cycle),
    "tower-of-pairs": _tower(b"2\x86", 60),
    "tower-of-pairs-legacy-file": _tower(b"2\x86", 60, legacy=True),
    "tower-of-pairs-in-the-memo": _tower(b"q\x00h\x00\x86", 60),
    "high-tower": _tower(b"\x85", 300_000),
    "too-many-wrappers": _saved(_nested(50)),
    "deep-dicts": _deep_dicts,
    "integer-keys": _saved(lambda _: dict(enumerate(sound_state().values()))),
    "huge-integer-key": _saved(lambda _: {2**2000: torch.zeros(2)}),
    "mixed-keys": _with(lambda _: {7: torch.zeros(2)}),
    "long-name": _with(lambda _: {"x" * 100_000: torch.zeros(2)}),
    "name-with-newline": _with(lambda _: {"a\nb\x1b[2J": torch.zeros(2)}),
    "too-many-tensors": _saved(lambda _: {f"w{i}": i for i in range(9)} | _many(20_001)),
    "nan": _changed(lambda t: torch.full_like(t, float("nan"))),
    "overflowed-half": _changed(lambda t: (t + 1e9).half()),
    "integers": _changed(lambda t: t.long()),
    "booleans": _changed(lambda t: t > 0),
    "complex": _changed(lambda t: t.to(torch.complex64)),
    "sparse": _changed(lambda t: t.to_sparse()),
    "sparse-csr": _changed(lambda t: t.to_sparse_csr()),
    "meta": _changed(lambda t: t.to("meta")),
    "quantised": _changed(lambda t: torch.quantize_per_tensor(t.contiguous(), 0.1, 0, torch.qint8)),
    "no-elements": _changed(lambda t: t.new_zeros(10**12, 0)),
    "scalar": _changed(lambda t: t.new_zeros(())),
    "expanded": _changed(lambda t: t.new_zeros(1, 1).expand(10**7, 10**7)),
    "expanded-half": _changed(lambda t: t.new_zeros(1, 1).half().expand(10**7, 10**7)),
    "aliased": _saved(lambda _: dict.fromkeys(map(str, range(99)), torch.zeros(100_000).half())),
    "counter-of-odd-shape": _changed(
        lambda _: torch.zeros(7), "backbone.body.bn1.num_batches_tracked"
    ),
    "another-network": _saved(lambda _: nn.Sequential(nn.Linear(2, 2)).state_dict()),
}


def _many(count: int) -> dict[str, Tensor]:
    one = torch.zeros(1)
    return {f"tensor{i}": one for i in range(count)}


def _safetensors(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + content


HOSTILE_SAFETENSORS: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x08\x00",
    "random": np.random.default_rng(1).bytes(4000),
    "huge-header": _safetensors(b"{}", length=2**62),
    "not-json": _safetensors(b"}{}{"),
    "no-tensors": _safetensors(b"{}"),
    "offsets-outside": _safetensors(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "huge-shape": _safetensors(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', bytes(4)
    ),
    "negative-length": _safetensors(b"{}", length=2**64 - 1),
    "length-beyond-the-file": _safetensors(b"{}", length=99),
    "overlapping-offsets": _safetensors(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        bytes(12),
    ),
    "gap-between-offsets": _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}',
        bytes(12),
    ),
    "backward-offsets": _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', bytes(4)
    ),
    "negative-offsets": _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', bytes(4)
    ),
    "negative-shape": _safetensors(
        b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "shape-that-overflows": _safetensors(
        b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "name-twice": _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "deep-json": _safetensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "huge-number": _safetensors(
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4)
    ),
    "unknown-type": _safetensors(
        b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "another-network": _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)
    ),
    "torch-file": b"PK\x03\x04" + bytes(64),
}
