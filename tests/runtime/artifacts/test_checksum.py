"""A file that differs from what was written is refused before any library reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.onnx_file import remove_checksum
from model.errors import ArtifactError
from runtime.artifacts import checksum
from runtime.artifacts.checksum import SEAL_KEY, require_sound, require_unbroken

CHUNK = 1 << 20


def small(path: Path, **metadata: str) -> Path:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0] * 4)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("size", [0, 1, 82, 83, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_what_was_sealed_is_sound(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    assert not require_sound(path)
    checksum.seal(path)
    assert require_sound(path)


@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_one_bit_is_noticed(at: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    body = bytearray(np.random.default_rng(1).bytes(2 * CHUNK + 4))
    path.write_bytes(body)
    checksum.seal(path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([body[at] ^ 4]))
    with pytest.raises(ArtifactError, match="not the bytes that maskport wrote"):
        require_sound(path)


def test_every_reader_of_onnx_reads_a_sealed_file(tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx", author="somebody")
    before = onnx.load(path)
    checksum.seal(path)
    after = onnx.load(path)
    assert after.metadata_props[-1].key == SEAL_KEY
    assert remove_checksum(after) == before
    onnx.checker.check_model(str(path))


@pytest.mark.parametrize("more", [b"\x00", b"\x72\x00", b"seal"])
def test_a_seal_in_the_middle_seals_nothing(more: bytes, tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx")
    checksum.seal(path)
    keys = [entry.key for entry in onnx.load(path).metadata_props]
    path.write_bytes(path.read_bytes() + more)
    is_sealed = require_sound(path)
    assert not is_sealed
    require_unbroken(path, is_sealed, ["author"])
    with pytest.raises(ArtifactError, match=f"remove its metadata entry '{SEAL_KEY}'"):
        require_unbroken(path, is_sealed, keys)


def test_names_of_other_files_are_refused(tmp_path: Path) -> None:
    """In every encoding, also across two chunks of the file; these bytes are no ONNX file."""
    path = tmp_path / "m.onnx"
    for tag, length in ((b"\x0a", b"\x08"), (b"\x0a", b"\x88\x00"), (b"\x8a\x00", b"\x08")):
        for shift in range(-len(tag + length) - 9, 1):
            path.write_bytes(b"\x01" * (CHUNK + shift) + tag + length + b"location" + b"\x12\x01a")
            with pytest.raises(ArtifactError, match="takes tensors from another file"):
                require_sound(path)
            assert not require_sound(path, alone=False)


@pytest.mark.parametrize("text", ["location", "a location", "location\n", "dislocation"])
def test_a_class_of_that_name_is_no_other_file(text: str, tmp_path: Path) -> None:
    assert not require_sound(small(tmp_path / "m.onnx", names=text, location_of=text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        require_sound(tmp_path / "none.onnx")
