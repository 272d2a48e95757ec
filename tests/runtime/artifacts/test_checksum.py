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
from runtime.artifacts.checksum import CHECKSUM_KEY, require_no_stale_checksum, verify_checksum

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
def test_an_unchanged_file_passes(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(np.random.default_rng(size).bytes(size))
    assert not verify_checksum(path)
    checksum.append_checksum(path)
    assert verify_checksum(path)


@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_one_flipped_bit_is_refused(at: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    body = bytearray(np.random.default_rng(1).bytes(2 * CHUNK + 4))
    path.write_bytes(body)
    checksum.append_checksum(path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([body[at] ^ 4]))
    with pytest.raises(ArtifactError, match="not the bytes that maskport wrote"):
        verify_checksum(path)


def test_onnx_reads_a_file_with_a_checksum(tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx", author="somebody")
    before = onnx.load(path)
    checksum.append_checksum(path)
    after = onnx.load(path)
    assert after.metadata_props[-1].key == CHECKSUM_KEY
    assert remove_checksum(after) == before
    onnx.checker.check_model(str(path))


@pytest.mark.parametrize("more", [b"\x00", b"\x72\x00", b"text"])
def test_a_checksum_that_is_not_at_the_end_is_refused(more: bytes, tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx")
    checksum.append_checksum(path)
    keys = [entry.key for entry in onnx.load(path).metadata_props]
    path.write_bytes(path.read_bytes() + more)
    has_checksum = verify_checksum(path)
    assert not has_checksum
    require_no_stale_checksum(path, has_checksum, ["author"])
    with pytest.raises(ArtifactError, match=f"remove its metadata entry '{CHECKSUM_KEY}'"):
        require_no_stale_checksum(path, has_checksum, keys)


def test_names_of_other_files_are_refused(tmp_path: Path) -> None:
    """In every encoding, also across two chunks of the file; these bytes are no ONNX file."""
    path = tmp_path / "m.onnx"
    for tag, length in ((b"\x0a", b"\x08"), (b"\x0a", b"\x88\x00"), (b"\x8a\x00", b"\x08")):
        for shift in range(-len(tag + length) - 9, 1):
            path.write_bytes(b"\x01" * (CHUNK + shift) + tag + length + b"location" + b"\x12\x01a")
            with pytest.raises(ArtifactError, match="its tensors are in another file"):
                verify_checksum(path)
            assert not verify_checksum(path, alone=False)


@pytest.mark.parametrize("text", ["location", "a location", "location\n", "dislocation"])
def test_metadata_named_location_is_accepted(text: str, tmp_path: Path) -> None:
    assert not verify_checksum(small(tmp_path / "m.onnx", names=text, location_of=text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        verify_checksum(tmp_path / "none.onnx")
