"""Attacks by external data: files that name other files for their tensors' contents.

Every attack is an otherwise sound export with one tensor moved out of it, sealed anew as a forger
would. The place it names holds a canary: values that change the answer when they are read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from export.onnx_file import drop_seal
from runtime.artifacts.checksum import seal

# The bias of the box head's scores: another one moves every score.
VICTIM = "box_head.cls_score.bias"
CANARY = 3.0


@dataclass(frozen=True)
class Scene:
    """A folder with the model's own folder `model` in it, and a file outside of that."""

    root: Path
    data: bytes

    @property
    def folder(self) -> Path:
        return self.root / "model"

    @property
    def outside(self) -> Path:
        return self.root / "outside.bin"

    def inside(self, name: str = "w.bin", data: bytes | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data if data is None else data)
        return path


Entries = dict[str, str]


def _at(location: str) -> Callable[[Scene], Entries]:
    return lambda _: {"location": location}


def _plain(**entries: str) -> Callable[[Scene], Entries]:
    def prepare(scene: Scene) -> Entries:
        scene.inside()
        return {"location": "w.bin", **entries}

    return prepare


def _link(scene: Scene) -> Entries:
    (scene.folder / "w.bin").symlink_to(scene.outside)
    return {"location": "w.bin"}


def _link_to_link(scene: Scene) -> Entries:
    (scene.folder / "v.bin").symlink_to(scene.outside)
    (scene.folder / "w.bin").symlink_to("v.bin")
    return {"location": "w.bin"}


def _linked_folder(scene: Scene) -> Entries:
    (scene.folder / "sub").symlink_to(scene.root, target_is_directory=True)
    return {"location": "sub/outside.bin"}


def _hard_link(scene: Scene) -> Entries:
    os.link(scene.outside, scene.folder / "w.bin")
    return {"location": "w.bin"}


def _pipe(scene: Scene) -> Entries:
    os.mkfifo(scene.folder / "w.bin")
    return {"location": "w.bin"}


def _device_link(scene: Scene) -> Entries:
    (scene.folder / "w.bin").symlink_to("/dev/zero")
    return {"location": "w.bin"}


def _folder(scene: Scene) -> Entries:
    (scene.folder / "w.bin").mkdir()
    return {"location": "w.bin"}


def _short(scene: Scene) -> Entries:
    scene.inside(data=scene.data[:5])
    return {"location": "w.bin"}


def _loop(scene: Scene) -> Entries:
    (scene.folder / "w.bin").symlink_to("w.bin")
    return {"location": "w.bin"}


ATTACKS: dict[str, Callable[[Scene], Entries]] = {
    "absolute": lambda scene: {"location": str(scene.outside)},
    "parent": _at("../outside.bin"),
    "parent-within": _at("sub/../../outside.bin"),
    "parent-deep": _at("./././../outside.bin"),
    "parent-and-back": _at("../model/../outside.bin"),
    "link": _link,
    "link-to-a-link": _link_to_link,
    "link-of-a-folder": _linked_folder,
    "link-in-a-circle": _loop,
    "hard-link": _hard_link,
    "link-to-a-device": _device_link,
    "device": _at("/dev/zero"),
    "proc": _at("/proc/self/environ"),
    "proc-by-parents": _at("../" * 40 + "proc/self/mem"),
    "own-descriptors": _at("/proc/self/fd/0"),
    "pipe": _pipe,
    "folder": _folder,
    "empty-location": _at(""),
    "zero-byte": _at("w.bin\0/../../outside.bin"),
    "windows-drive": _at("C:\\Windows\\win.ini"),
    "windows-parent": _at("..\\outside.bin"),
    "windows-share": _at("\\\\host\\share\\outside.bin"),
    "web-address": _at("https://example.com/outside.bin"),
    "file-address": lambda scene: {"location": f"file://{scene.outside}"},
    "memory-address": _at("*/_ORT_MEM_ADDR_/*"),
    "no-such-file": _at("none.bin"),
    "negative-offset": _plain(offset="-4"),
    "overflowing-offset": _plain(offset=str(2**64 - 4)),
    "offset-beyond-the-file": _plain(offset="4096"),
    "offset-that-is-no-number": _plain(offset="0x0"),
    "length-beyond-the-file": _plain(length=str(2**40)),
    "negative-length": _plain(length="-12"),
    "short-file": _short,
}


def attack(kind: str, sound: Path, root: Path) -> Path:
    """Write the attack `kind` on a sound file into `root`; answer the model's path."""
    model = drop_seal(onnx.load(sound))
    (tensor,) = (t for t in model.graph.initializer if t.name == VICTIM)
    data = np.full(tuple(tensor.dims), CANARY, np.float32)
    data[0] = -CANARY
    scene = Scene(root, data.tobytes())
    scene.folder.mkdir()
    scene.outside.write_bytes(scene.data)
    point_at(tensor, ATTACKS[kind](scene))
    path = scene.folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    seal(path)
    return path


def point_at(tensor: onnx.TensorProto, entries: Entries) -> None:
    """Empty a tensor and have it name a file."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
